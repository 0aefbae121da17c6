#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>
#include <vector>

#include "agent/guest/file_ops.h"

namespace bunker::guest {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kMaxSmallBytes = 4 << 20;
constexpr size_t kMaxRows = 200;
constexpr size_t kMaxLinkBytes = 1024;  // of a target, in a folder's rows

// Files of the kernel say that they are empty; only their end tells how large they are.
bool TellsNoSize(int fd) {
  struct statfs facts{};
  if (fstatfs(fd, &facts) != 0) return false;
  return facts.f_type == PROC_SUPER_MAGIC || facts.f_type == SYSFS_MAGIC ||
         facts.f_type == CGROUP2_SUPER_MAGIC;
}

FileResult ReadSmall(int fd, v1::FileHead head, FilePeer* peer) {
  std::string content;
  char piece[4096];
  for (;;) {
    const ssize_t got = read(fd, piece, sizeof(piece));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileErrno("read");
    if (got == 0) break;
    content.append(piece, static_cast<size_t>(got));
    if (content.size() > kMaxSmallBytes) {
      return FileFailure(v1::FileEnd::INVALID, "a file of the kernel is larger than 4 MiB");
    }
  }
  head.set_size(content.size());
  head.mutable_row()->set_size(content.size());
  peer->SendHead(head);
  peer->SendData(content);
  return {};
}

FileResult ReadBytes(int fd, uint64_t size, FilePeer* peer) {
  posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  const std::unique_ptr<char[]> buffer(new char[kReadBytes]);
  while (size > 0) {
    const ssize_t got = read(fd, buffer.get(), std::min<uint64_t>(size, kReadBytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileErrno("read");
    if (got == 0) {
      return FileFailure(v1::FileEnd::FAILED, "the file became shorter while it was read");
    }
    if (!peer->SendData({buffer.get(), static_cast<size_t>(got)})) return {};
    size -= static_cast<uint64_t>(got);
  }
  return {};
}

// The names after `after`, in the order of their bytes: of all that there are, the first few.
class FirstNames {
 public:
  FirstNames(std::string after, size_t limit) : after_(std::move(after)), limit_(limit) {}

  void Add(std::string name) {
    if (name <= after_) return;
    names_.push_back(std::move(name));
    std::push_heap(names_.begin(), names_.end());
    if (names_.size() <= limit_) return;
    std::pop_heap(names_.begin(), names_.end());
    names_.pop_back();
    more_ = true;
  }
  std::vector<std::string> Take() {
    std::sort(names_.begin(), names_.end());
    return std::move(names_);
  }
  bool more() const { return more_; }

 private:
  const std::string after_;
  const size_t limit_;
  std::vector<std::string> names_;  // a heap, the greatest first
  bool more_ = false;
};

FileResult ListFolder(Fd folder, const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  DIR* stream = fdopendir(folder.get());
  if (stream == nullptr) return FileErrno(Quoted(start.path()));
  const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, closedir);
  folder.Release();
  FirstNames first(start.after(), std::min<size_t>(start.limit(), kMaxRows));
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream);
    if (entry == nullptr && errno != 0) return FileErrno(Quoted(start.path()));
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") first.Add(name);
  }
  for (const std::string& name : first.Take()) {
    struct stat facts{};
    if (fstatat(dirfd(stream), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // gone meanwhile
      facts = {};                     // a folder that may be listed but not entered
    }
    v1::FileRow row;
    FillRow(facts, name, &row);
    if (S_ISLNK(facts.st_mode)) {
      char target[kMaxLinkBytes];
      const ssize_t size = readlinkat(dirfd(stream), name.c_str(), target, sizeof(target));
      if (size > 0) row.set_link_target(std::string(target, static_cast<size_t>(size)));
    }
    if (!peer->SendData(LengthPrefixed(row.SerializeAsString()))) return {};
  }
  end->set_has_more(first.more());
  return {};
}

}  // namespace

FileResult ReadPath(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  const std::string& path = start.path();
  // Not blocking: a pipe without a writer, or a device, must not hold this up.
  Fd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd.valid()) return FileErrno(Quoted(path));
  struct stat facts{};
  if (fstat(fd.get(), &facts) != 0) return FileErrno(Quoted(path));
  v1::FileHead head;
  FillRow(facts, BaseName(path), head.mutable_row());
  if (S_ISDIR(facts.st_mode)) {
    head.set_is_folder(true);
    peer->SendHead(head);
    return ListFolder(std::move(fd), start, peer, end);
  }
  if (!S_ISREG(facts.st_mode)) {
    return FileFailure(v1::FileEnd::WRONG_TYPE,
                       Quoted(path) + " is a device, a pipe or a socket; only files and folders "
                                      "can be read");
  }
  if (facts.st_size == 0 && TellsNoSize(fd.get())) return ReadSmall(fd.get(), head, peer);
  head.set_size(static_cast<uint64_t>(facts.st_size));
  peer->SendHead(head);
  return ReadBytes(fd.get(), head.size(), peer);
}

}  // namespace bunker::guest
