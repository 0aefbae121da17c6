// Whole small files, as /proc, /sys and /etc have them. Free functions, no state.
#pragma once

#include <string>
#include <string_view>

#include "agent/guest/error.h"

namespace bunker::guest {

// Reads at most `max_bytes`; more is an error. `dir_fd` as for openat(2).
Error ReadSmallFile(int dir_fd, const char* path, size_t max_bytes, std::string* content);

// Opens with `flags` (O_WRONLY is added) and writes all in one go.
Error WriteSmallFile(int dir_fd, const char* path, int flags, unsigned mode,
                     std::string_view content);

}  // namespace bunker::guest
