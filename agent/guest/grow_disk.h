// The private disk grows while it is mounted.
#pragma once

#include <cstdint>

#include "agent/guest/error.h"

namespace bunker::guest {

// Makes the ext4 file system that `root_fd` lies on `bytes` long, once its disk is: the news of
// that may come after the request. Waits for it for at most two seconds.
Error GrowFileSystem(int root_fd, uint64_t bytes);

}  // namespace bunker::guest
