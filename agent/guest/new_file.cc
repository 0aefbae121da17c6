#include "agent/guest/new_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "agent/guest/file_ops.h"

namespace bunker::guest {
namespace {

constexpr int kAttempts = 16;
constexpr size_t kHoleBytes = 4096;

// ".bunker-" and 16 hex digits.
std::string TemporaryName() {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
    random = static_cast<uint64_t>(getpid());
  }
  char name[32];
  std::snprintf(name, sizeof(name), ".bunker-%016llx", static_cast<unsigned long long>(random));
  return name;
}

// REQUIRES: size > 0.
bool IsZero(const char* data, size_t size) {
  return data[0] == 0 && std::memcmp(data, data + 1, size - 1) == 0;
}

}  // namespace

NewFile::~NewFile() {
  if (!name_.empty()) unlinkat(folder_, name_.c_str(), 0);
}

FileResult NewFile::Create(const std::string& folder) {
  own_folder_ = Fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // A folder may be writable and searchable without being readable.
  if (!own_folder_.valid() && errno == EACCES) {
    own_folder_ = Fd(open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  if (!own_folder_.valid()) return FileErrno(Quoted(folder));
  return CreateAt(own_folder_.get());
}

FileResult NewFile::CreateAt(int folder_fd) {
  folder_ = folder_fd;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::string name = TemporaryName();
    fd_ = Fd(openat(folder_, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    0600));
    if (fd_.valid()) {
      name_ = name;
      return {};
    }
    if (errno != EEXIST) break;
  }
  return FileErrno("make a file in the folder");
}

FileResult NewFile::Append(std::string_view data) {
  while (!data.empty()) {
    // In steps that end where blocks do, so that a run of zeros leaves its blocks out. Data comes
    // in pieces of any size: the part of a block that a piece ends with counts as well.
    const size_t step = std::min<size_t>(data.size(), kHoleBytes - size_ % kHoleBytes);
    if (IsZero(data.data(), step)) {
      size_ += step;
      data.remove_prefix(step);
      continue;
    }
    size_t run = step;
    while (run < data.size()) {
      const size_t next = std::min(data.size() - run, kHoleBytes);
      if (IsZero(data.data() + run, next)) break;
      run += next;
    }
    while (run > 0) {
      const ssize_t written = pwrite(fd_.get(), data.data(), run, static_cast<off_t>(size_));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return FileErrno("write");
      size_ += static_cast<uint64_t>(written);
      run -= static_cast<size_t>(written);
      data.remove_prefix(static_cast<size_t>(written));
    }
  }
  return {};
}

void NewFile::KeepOwner(uid_t uid, gid_t gid) {
  // Where it can't be kept, the new one is the writer's.
  [[maybe_unused]] const int kept = fchown(fd_.get(), uid, gid);
}

FileResult NewFile::Finish(mode_t mode) {
  struct stat facts{};
  if (fstat(fd_.get(), &facts) != 0) return FileErrno("write");
  // A hole at the end. Not else: it would change the time.
  const auto size = static_cast<off_t>(size_);
  if (facts.st_size != size && ftruncate(fd_.get(), size) != 0) return FileErrno("write");
  if (fchmod(fd_.get(), mode) != 0) return FileErrno("set the mode");
  return {};
}

FileResult NewFile::Publish(const std::string& target, mode_t mode) {
  if (FileResult result = Finish(mode); !result.ok()) return result;
  if (fsync(fd_.get()) != 0) return FileErrno("write to the disk");
  if (renameat(folder_, name_.c_str(), AT_FDCWD, target.c_str()) != 0) {
    return FileErrno(Quoted(target));
  }
  name_.clear();
  fsync(folder_);  // of an O_PATH one it can't be done; the file's own content is safe
  return {};
}

FileResult NewFile::PublishAt(const std::string& name, mode_t mode) {
  if (FileResult result = Finish(mode); !result.ok()) return result;
  if (renameat(folder_, name_.c_str(), folder_, name.c_str()) != 0) return FileErrno(Quoted(name));
  name_.clear();
  return {};
}

}  // namespace bunker::guest
