// Small, durable file operations: what is half made is never visible.
// Thread-safe: free functions without state. Blocking: never call them on a loop that serves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bunker {

// The whole file; kResourceExhausted where it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

// Writes `path`.tmp-<pid>, fsyncs, renames it over `path` and fsyncs the folder. `mode` is exact,
// whatever the umask.
absl::Status WriteFileDurably(const std::string& path, std::string_view content, unsigned mode);

// fsync(2) of a folder, so that a rename in it survives a power cut.
absl::Status SyncFolder(const std::string& path);

// Creates the folder and its missing parents with exactly `mode`, whatever the umask; one that is
// there already is left as it is.
absl::Status MakeFolders(const std::string& path, unsigned mode);

// write(2) until all is written.
absl::Status WriteAll(int fd, std::string_view data);

// pwrite(2) until all is written.
absl::Status WriteAllAt(int fd, std::string_view data, uint64_t offset);

// pread(2) until `size` bytes are there; EIO where the file ends before.
absl::Status ReadAllAt(int fd, char* data, size_t size, uint64_t offset);

}  // namespace bunker
