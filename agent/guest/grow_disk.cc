#include "agent/guest/grow_disk.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "agent/guest/exec_session.h"  // NowMicros
#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

// The kernel's, which its headers for programs don't have.
constexpr unsigned long kResizeFs = _IOW('f', 16, uint64_t);
constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kWaitMicros = 2'000'000;
constexpr unsigned kPauseMicros = 500;

Error DiskBytes(int root_fd, uint64_t* bytes) {
  struct stat info {};
  if (fstat(root_fd, &info) != 0) return ErrnoError("look at the private disk");
  const std::string path = "/sys/dev/block/" + std::to_string(major(info.st_dev)) + ":" +
                           std::to_string(minor(info.st_dev)) + "/size";
  std::string sectors;
  if (Error error = ReadSmallFile(AT_FDCWD, path.c_str(), 64, &sectors); !error.ok()) return error;
  *bytes = std::strtoull(sectors.c_str(), nullptr, 10) * kSectorBytes;
  return {};
}

}  // namespace

Error GrowFileSystem(int root_fd, uint64_t bytes) {
  const uint64_t deadline = NowMicros() + kWaitMicros;
  for (uint64_t now_bytes = 0;;) {
    if (Error error = DiskBytes(root_fd, &now_bytes); !error.ok()) return error;
    if (now_bytes >= bytes) break;
    if (NowMicros() >= deadline) return {"the private disk did not grow"};
    // The kernel takes the new size in from the device's interrupt, and no call waits for that.
    usleep(kPauseMicros);
  }
  uint64_t blocks = bytes / kBlockBytes;
  if (ioctl(root_fd, kResizeFs, &blocks) != 0) return ErrnoError("grow the private disk's files");
  return {};
}

}  // namespace bunker::guest
