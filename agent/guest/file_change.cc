// Removing, moving, and making folders.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent/guest/file_ops.h"
#include "agent/guest/file_tree.h"

namespace bunker::guest {
namespace {

Fd OpenParent(const std::string& path) {
  return Fd(open(ParentOf(path).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

// What names the root, or no one thing: "/", "/..", "/a/.".
bool NamesNothing(const std::string& path) {
  const std::string name = BaseName(path);
  return name.empty() || name == "/" || name == "." || name == "..";
}

FileResult NotThat(const std::string& path) {
  return FileFailure(v1::FileEnd::INVALID,
                     Quoted(path) + " can't be removed or moved; name a file or a folder");
}

FileResult MakeParents(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST && errno != EISDIR) {
      struct stat facts{};
      const int number = errno;
      if (stat(part.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode)) continue;
      errno = number;
      return FileErrno(Quoted(part));
    }
  }
  return {};
}

// rename(2) can't: the two are on different file systems, or the overlay can't move a folder of the
// image. The copy appears whole, then the source goes.
FileResult MoveByCopy(const v1::FileStart& start, const FilePeer* peer) {
  const Fd from = OpenParent(start.path());
  const Fd to = OpenParent(start.to());
  if (!from.valid() || !to.valid()) return FileErrno("open a folder");
  const std::string name = BaseName(start.path());
  const std::string target = BaseName(start.to());
  const std::string temporary = ".bunker-move-" + std::to_string(getpid());
  uint64_t ignored = 0;
  FileResult result = CopyTree(from.get(), name, to.get(), temporary, peer);
  const unsigned flags = start.overwrite() ? 0 : RENAME_NOREPLACE;
  if (result.ok() &&
      renameat2(to.get(), temporary.c_str(), to.get(), target.c_str(), flags) != 0) {
    result = FileErrno(Quoted(start.to()));
  }
  if (!result.ok()) {
    [[maybe_unused]] const FileResult cleaned =
        RemoveTree(to.get(), temporary, nullptr, &ignored);
    return result;
  }
  return RemoveTree(from.get(), name, nullptr, &ignored);
}

}  // namespace

FileResult RemovePath(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  const std::string& path = start.path();
  if (NamesNothing(path)) return NotThat(path);
  struct stat facts{};
  if (lstat(path.c_str(), &facts) != 0) return FileErrno(Quoted(path));
  uint64_t entries = 0;
  if (S_ISDIR(facts.st_mode) && start.recursive()) {
    const Fd parent = OpenParent(path);
    if (!parent.valid()) return FileErrno(Quoted(ParentOf(path)));
    if (FileResult result = RemoveTree(parent.get(), BaseName(path), peer, &entries);
        !result.ok()) {
      return result;
    }
  } else if ((S_ISDIR(facts.st_mode) ? rmdir(path.c_str()) : unlink(path.c_str())) != 0) {
    return FileErrno(Quoted(path));
  } else {
    entries = 1;
  }
  end->set_entries(entries);
  return {};
}

FileResult MakeFolder(const v1::FileStart& start, v1::FileEnd* end) {
  std::string path = start.path();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (start.parents()) {
    if (FileResult result = MakeParents(path); !result.ok()) return result;
  }
  const mode_t mode = start.has_mode() ? start.mode() : 0755;
  if (mkdir(path.c_str(), mode) == 0) {
    if (chmod(path.c_str(), mode) != 0) return FileErrno(Quoted(path));
  } else {
    const int number = errno;
    struct stat facts{};
    const bool is_there = stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
    errno = number;
    if (!is_there || !start.parents()) return FileErrno(Quoted(path));
  }
  return StatPath(path, end->mutable_row());
}

FileResult MovePath(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  if (NamesNothing(start.path())) return NotThat(start.path());
  if (NamesNothing(start.to())) return NotThat(start.to());
  struct stat facts{};
  if (lstat(start.path().c_str(), &facts) != 0) return FileErrno(Quoted(start.path()));
  const unsigned flags = start.overwrite() ? 0 : RENAME_NOREPLACE;
  if (renameat2(AT_FDCWD, start.path().c_str(), AT_FDCWD, start.to().c_str(), flags) != 0) {
    if (errno != EXDEV) return FileErrno(Quoted(start.path()) + " to " + Quoted(start.to()));
    if (FileResult result = MoveByCopy(start, peer); !result.ok()) return result;
  }
  return StatPath(start.to(), end->mutable_row());
}

}  // namespace bunker::guest
