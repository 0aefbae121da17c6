#include "agent/guest/file_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <memory>
#include <vector>

#include "agent/guest/file_ops.h"
#include "agent/guest/new_file.h"

namespace bunker::guest {
namespace {

constexpr size_t kBatchNames = 1024;

FileResult TooDeep() {
  return FileFailure(v1::FileEnd::INVALID, "folders are more than 400 deep inside one another");
}

FileResult GivenUp() {
  return FileFailure(v1::FileEnd::FAILED, "it was given up");
}

Fd OpenFolder(int folder_fd, const std::string& name) {
  return Fd(openat(folder_fd, name.c_str(),
                   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
}

// Some of the names in a folder; a folder that shrinks under the reader must not hide any.
FileResult FirstBatch(int folder_fd, std::vector<std::string>* names) {
  names->clear();
  DIR* stream = fdopendir(fcntl(folder_fd, F_DUPFD_CLOEXEC, 0));
  if (stream == nullptr) return FileErrno("read a folder");
  const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, closedir);
  rewinddir(stream);
  while (names->size() < kBatchNames) {
    errno = 0;
    const dirent* entry = readdir(stream);
    if (entry == nullptr && errno != 0) return FileErrno("read a folder");
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names->push_back(name);
  }
  return {};
}

FileResult RemoveBelow(int folder_fd, const std::string& name, const FilePeer* peer, int depth,
                       uint64_t* entries) {
  if (depth > kMaxFolderDepth) return TooDeep();
  if (unlinkat(folder_fd, name.c_str(), 0) == 0) {
    ++*entries;
    return {};
  }
  if (errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return FileErrno(Quoted(name));
  const FileResult refused = FileErrno(Quoted(name));
  {
    Fd folder = OpenFolder(folder_fd, name);
    if (!folder.valid()) {
      return errno == ENOTDIR || errno == ELOOP ? refused : FileErrno(Quoted(name));
    }
    std::vector<std::string> names;
    do {
      if (peer != nullptr && peer->Gone()) return GivenUp();
      if (FileResult result = FirstBatch(folder.get(), &names); !result.ok()) return result;
      for (const std::string& one : names) {
        FileResult result = RemoveBelow(folder.get(), one, peer, depth + 1, entries);
        if (!result.ok()) return result;
      }
    } while (!names.empty());
  }
  if (unlinkat(folder_fd, name.c_str(), AT_REMOVEDIR) != 0) return FileErrno(Quoted(name));
  ++*entries;
  return {};
}

FileResult CopyFile(int from, const struct stat& facts, int to_fd, const std::string& to_name,
                    const FilePeer* peer) {
  NewFile file;
  if (FileResult result = file.CreateAt(to_fd); !result.ok()) return result;
  const std::unique_ptr<char[]> buffer(new char[256 * 1024]);
  for (;;) {
    if (peer != nullptr && peer->Gone()) return GivenUp();
    const ssize_t got = read(from, buffer.get(), 256 * 1024);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileErrno("read");
    if (got == 0) break;
    FileResult result = file.Append({buffer.get(), static_cast<size_t>(got)});
    if (!result.ok()) return result;
  }
  if (geteuid() == 0) file.KeepOwner(facts.st_uid, facts.st_gid);
  const timespec times[2] = {facts.st_atim, facts.st_mtim};
  futimens(file.fd(), times);
  return file.PublishAt(to_name, facts.st_mode & 07777);
}

FileResult CopyBelow(int from_fd, const std::string& name, int to_fd, const std::string& to_name,
                     const FilePeer* peer, int depth) {
  if (depth > kMaxFolderDepth) return TooDeep();
  struct stat facts{};
  if (fstatat(from_fd, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
    return FileErrno(Quoted(name));
  }
  if (S_ISLNK(facts.st_mode)) {
    char target[PATH_MAX];
    const ssize_t size = readlinkat(from_fd, name.c_str(), target, sizeof(target) - 1);
    if (size < 0) return FileErrno(Quoted(name));
    target[size] = '\0';
    if (symlinkat(target, to_fd, to_name.c_str()) != 0) return FileErrno(Quoted(to_name));
    return {};
  }
  if (!S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode)) {
    return FileFailure(v1::FileEnd::WRONG_TYPE,
                       Quoted(name) + " is a device, a pipe or a socket; it can't go to another "
                                      "file system");
  }
  Fd from(openat(from_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!from.valid()) return FileErrno(Quoted(name));
  if (S_ISREG(facts.st_mode)) return CopyFile(from.get(), facts, to_fd, to_name, peer);
  if (mkdirat(to_fd, to_name.c_str(), 0700) != 0) return FileErrno(Quoted(to_name));
  const Fd to = OpenFolder(to_fd, to_name);
  if (!to.valid()) return FileErrno(Quoted(to_name));
  FileResult result = ForEachName(from.get(), [&](const std::string& one) {
    return CopyBelow(from.get(), one, to.get(), one, peer, depth + 1);
  });
  if (!result.ok()) return result;
  if (geteuid() == 0 && fchown(to.get(), facts.st_uid, facts.st_gid) != 0) {
    return FileErrno(Quoted(to_name));
  }
  if (fchmod(to.get(), facts.st_mode & 07777) != 0) return FileErrno(Quoted(to_name));
  const timespec times[2] = {facts.st_atim, facts.st_mtim};
  futimens(to.get(), times);
  return {};
}

}  // namespace

FileResult ForEachName(int folder_fd, const std::function<FileResult(const std::string&)>& visit) {
  DIR* stream = fdopendir(fcntl(folder_fd, F_DUPFD_CLOEXEC, 0));
  if (stream == nullptr) return FileErrno("read a folder");
  const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, closedir);
  rewinddir(stream);
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream);
    if (entry == nullptr && errno != 0) return FileErrno("read a folder");
    if (entry == nullptr) return {};
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (FileResult result = visit(name); !result.ok()) return result;
  }
}

FileResult RemoveTree(int folder_fd, const std::string& name, const FilePeer* peer,
                      uint64_t* entries) {
  return RemoveBelow(folder_fd, name, peer, 0, entries);
}

FileResult CopyTree(int from_fd, const std::string& name, int to_fd, const std::string& to_name,
                    const FilePeer* peer) {
  return CopyBelow(from_fd, name, to_fd, to_name, peer, 0);
}

}  // namespace bunker::guest
