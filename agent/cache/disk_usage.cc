#include "agent/cache/disk_usage.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "common/base/reason.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kStatBlockBytes = 512;

// Files come and go under the walk: what is gone when it is looked at takes nothing.
uint64_t AllocatedBelow(const fs::path& folder) {
  uint64_t total = 0;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied, error);
  while (!error && it != fs::recursive_directory_iterator()) {
    struct stat info {};
    if (::lstat(it->path().c_str(), &info) == 0)
      total += static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
    it.increment(error);
  }
  return total;
}

}  // namespace

absl::StatusOr<DiskUsage> MeasureDisk(const std::string& state_dir, uint64_t cap_bytes) {
  struct statvfs disk {};
  if (::statvfs(state_dir.c_str(), &disk) != 0) return ErrnoError(errno, "statvfs " + state_dir);
  DiskUsage usage;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(state_dir, error)) {
    const std::string name = entry.path().filename();
    struct stat info {};
    uint64_t bytes = 0;
    if (::lstat(entry.path().c_str(), &info) == 0)
      bytes = static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
    if (S_ISDIR(info.st_mode)) bytes += AllocatedBelow(entry.path());
    usage.used_bytes += bytes;
    if (name == "images" || name == "blobs") usage.cache_bytes += bytes;
  }
  usage.capacity_bytes = uint64_t{disk.f_bavail} * disk.f_frsize + usage.used_bytes;
  if (cap_bytes > 0) usage.capacity_bytes = std::min(usage.capacity_bytes, cap_bytes);
  return usage;
}

}  // namespace bunker::agent
