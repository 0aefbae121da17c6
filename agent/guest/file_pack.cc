// A folder as tar, and back.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <map>
#include <memory>
#include <utility>

#include "agent/guest/file_ops.h"
#include "agent/guest/file_tree.h"
#include "agent/guest/new_file.h"
#include "agent/guest/tar_format.h"

namespace bunker::guest {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kMaxHardLinks = 100'000;  // remembered; further ones are written as files

class Packer {
 public:
  explicit Packer(FilePeer* peer) : peer_(peer), buffer_(new char[kReadBytes]) {}

  FileResult PackFolder(int folder_fd, const std::string& prefix, int depth) {
    if (depth > kMaxFolderDepth) {
      return FileFailure(v1::FileEnd::INVALID, "folders are more than 400 deep in one another");
    }
    return ForEachName(folder_fd, [&](const std::string& name) {
      return PackOne(folder_fd, name, prefix.empty() ? name : prefix + "/" + name, depth);
    });
  }
  FileResult Send(std::string_view bytes) {
    if (peer_->SendData(bytes)) return {};
    return FileFailure(v1::FileEnd::FAILED, "it was given up");
  }

 private:
  FileResult PackOne(int folder_fd, const std::string& name, const std::string& path, int depth) {
    struct stat facts{};
    if (fstatat(folder_fd, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
      return errno == ENOENT ? FileResult() : FileErrno(Quoted(path));
    }
    TarEntry entry;
    entry.path = path;
    entry.mode = facts.st_mode & 07777;
    entry.uid = facts.st_uid;
    entry.gid = facts.st_gid;
    entry.modified_s = facts.st_mtim.tv_sec;
    if (S_ISLNK(facts.st_mode)) {
      char target[PATH_MAX];
      const ssize_t size = readlinkat(folder_fd, name.c_str(), target, sizeof(target));
      if (size < 0) return FileErrno(Quoted(path));
      entry.type = TarEntry::Type::kSymlink;
      entry.link.assign(target, static_cast<size_t>(size));
      return Send(TarHeader(entry));
    }
    if (S_ISDIR(facts.st_mode)) {
      const Fd folder(openat(folder_fd, name.c_str(),
                             O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      if (!folder.valid()) return FileErrno(Quoted(path));
      entry.type = TarEntry::Type::kFolder;
      if (FileResult result = Send(TarHeader(entry)); !result.ok()) return result;
      return PackFolder(folder.get(), path, depth + 1);
    }
    if (!S_ISREG(facts.st_mode)) return {};  // pipes, sockets and devices stay behind
    if (facts.st_nlink > 1 && IsKnown(facts, path, &entry)) return Send(TarHeader(entry));
    return PackFile(folder_fd, name, std::move(entry));
  }

  bool IsKnown(const struct stat& facts, const std::string& path, TarEntry* entry) {
    const auto key = std::make_pair(facts.st_dev, facts.st_ino);
    const auto found = links_.find(key);
    if (found == links_.end()) {
      if (links_.size() < kMaxHardLinks) links_[key] = path;
      return false;
    }
    entry->type = TarEntry::Type::kHardLink;
    entry->link = found->second;
    return true;
  }

  FileResult PackFile(int folder_fd, const std::string& name, TarEntry entry) {
    const Fd file(openat(folder_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat facts{};
    if (!file.valid() || fstat(file.get(), &facts) != 0) return FileErrno(Quoted(entry.path));
    entry.size = static_cast<uint64_t>(facts.st_size);
    if (FileResult result = Send(TarHeader(entry)); !result.ok()) return result;
    for (uint64_t left = entry.size; left > 0;) {
      const ssize_t got = read(file.get(), buffer_.get(), std::min<uint64_t>(left, kReadBytes));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FileErrno(Quoted(entry.path));
      if (got == 0) {
        return FileFailure(v1::FileEnd::FAILED,
                           Quoted(entry.path) + " became shorter while it was read");
      }
      FileResult result = Send({buffer_.get(), static_cast<size_t>(got)});
      if (!result.ok()) return result;
      left -= static_cast<uint64_t>(got);
    }
    return Send(TarPadding(entry.size));
  }

  FilePeer* const peer_;
  const std::unique_ptr<char[]> buffer_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;  // of files with several names: the first
};

class Unpacker {
 public:
  Unpacker(int root, FilePeer* peer)
      : root_(root), peer_(peer), reader_([this] { return Receive(); }) {}

  FileResult Run(uint64_t* entries) {
    TarEntry entry;
    for (;;) {
      const TarReader::Result next = reader_.Next(&entry);
      if (gone_) return FileFailure(v1::FileEnd::FAILED, "it was given up");
      if (next == TarReader::Result::kBroken) return Broken();
      if (next == TarReader::Result::kEnd) break;
      if (FileResult result = Make(entry); !result.ok()) return result;
      ++*entries;
    }
    while (!committed_ && !gone_) Receive();  // what an archiver pads its end with
    if (gone_) return FileFailure(v1::FileEnd::FAILED, "it was given up");
    return {};
  }

 private:
  std::string_view Receive() {
    if (committed_ || gone_) return {};
    std::string_view data;
    v1::FileCommit commit;
    switch (peer_->Receive(&data, &commit)) {
      case FilePeer::Received::kData:
        return data;
      case FilePeer::Received::kCommit:
        committed_ = true;
        return {};
      case FilePeer::Received::kGone:
        gone_ = true;
        return {};
    }
    return {};
  }

  FileResult Broken() const { return FileFailure(v1::FileEnd::INVALID, reader_.error()); }

  // The folder that a member belongs into. The kernel refuses what leads out of the target, also
  // through links that the archive itself made.
  FileResult OpenBelow(const std::string& path, Fd* folder) const {
    open_how how{};
    how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    const std::string name = path.empty() ? "." : path;
    *folder = Fd(static_cast<int>(syscall(SYS_openat2, root_, name.c_str(), &how, sizeof(how))));
    if (folder->valid()) return {};
    if (errno == EXDEV) {
      return FileFailure(v1::FileEnd::INVALID,
                         Quoted(path) + " leads out of the folder through a symbolic link");
    }
    return FileErrno(Quoted(path));
  }

  FileResult OpenParent(const std::string& path, Fd* folder, std::string* name) const {
    const size_t slash = path.rfind('/');
    *name = slash == std::string::npos ? path : path.substr(slash + 1);
    const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
    FileResult result = OpenBelow(parent, folder);
    if (result.kind != v1::FileEnd::NOT_FOUND) return result;
    // An archive may leave folders out.
    Fd above;
    std::string last;
    if (result = OpenParent(parent, &above, &last); !result.ok()) return result;
    if (mkdirat(above.get(), last.c_str(), 0755) != 0 && errno != EEXIST) {
      return FileErrno(Quoted(parent));
    }
    return OpenBelow(parent, folder);
  }

  FileResult Make(const TarEntry& entry) {
    std::string path;
    if (!CleanMemberPath(entry.path, &path)) {
      return FileFailure(v1::FileEnd::INVALID,
                         "the archive's member " + Quoted(entry.path) + " holds \"..\"");
    }
    if (path.size() >= PATH_MAX) {
      return FileFailure(v1::FileEnd::INVALID, "a path in the archive is too long");
    }
    if (path.empty()) return {};  // the folder itself
    Fd folder;
    std::string name;
    if (FileResult result = OpenParent(path, &folder, &name); !result.ok()) return result;
    switch (entry.type) {
      case TarEntry::Type::kFolder:
        return MakeOneFolder(folder.get(), name, entry);
      case TarEntry::Type::kSymlink:
        return MakeLink(folder.get(), name, entry);
      case TarEntry::Type::kHardLink:
        return MakeHardLink(folder.get(), name, entry);
      case TarEntry::Type::kFile:
        break;
    }
    return MakeFile(folder.get(), name, entry);
  }

  static FileResult MakeOneFolder(int folder, const std::string& name, const TarEntry& entry) {
    if (mkdirat(folder, name.c_str(), entry.mode) != 0) {
      struct stat facts{};
      const int number = errno;
      const bool is_there = fstatat(folder, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0;
      errno = number;
      if (!is_there || !S_ISDIR(facts.st_mode)) return FileErrno(Quoted(entry.path));
      return {};  // its rights stay as they are
    }
    // Its owner must be able to fill it.
    if (fchmodat(folder, name.c_str(), entry.mode | 0700, 0) != 0) {
      return FileErrno(Quoted(entry.path));
    }
    return {};
  }

  static FileResult MakeLink(int folder, const std::string& name, const TarEntry& entry) {
    if (unlinkat(folder, name.c_str(), 0) != 0 && errno != ENOENT) {
      return FileErrno(Quoted(entry.path));
    }
    if (symlinkat(entry.link.c_str(), folder, name.c_str()) != 0) {
      return FileErrno(Quoted(entry.path));
    }
    return {};
  }

  FileResult MakeHardLink(int folder, const std::string& name, const TarEntry& entry) const {
    std::string target, target_name;
    Fd target_folder;
    if (!CleanMemberPath(entry.link, &target) || target.empty()) {
      return FileFailure(v1::FileEnd::INVALID,
                         "the archive's link " + Quoted(entry.path) + " leads out of the folder");
    }
    FileResult result = OpenParent(target, &target_folder, &target_name);
    if (!result.ok()) return result;
    unlinkat(folder, name.c_str(), 0);
    if (linkat(target_folder.get(), target_name.c_str(), folder, name.c_str(), 0) != 0) {
      return FileErrno(Quoted(entry.path));
    }
    return {};
  }

  FileResult MakeFile(int folder, const std::string& name, const TarEntry& entry) {
    NewFile file;
    if (FileResult result = file.CreateAt(folder); !result.ok()) return result;
    for (std::string_view data = reader_.ReadData(); !data.empty(); data = reader_.ReadData()) {
      if (FileResult result = file.Append(data); !result.ok()) return result;
    }
    if (gone_) return FileFailure(v1::FileEnd::FAILED, "it was given up");
    if (reader_.broken()) return Broken();
    const timespec times[2] = {{entry.modified_s, 0}, {entry.modified_s, 0}};
    futimens(file.fd(), times);
    return file.PublishAt(name, entry.mode);
  }

  const int root_;
  FilePeer* const peer_;
  TarReader reader_;
  bool committed_ = false;
  bool gone_ = false;
};

}  // namespace

FileResult PackFolder(const v1::FileStart& start, FilePeer* peer) {
  const Fd folder(open(start.path().c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC));
  if (!folder.valid()) return FileErrno(Quoted(start.path()));
  v1::FileHead head;
  if (FileResult result = StatPath(start.path(), head.mutable_row()); !result.ok()) return result;
  peer->SendHead(head);
  Packer packer(peer);
  if (FileResult result = packer.PackFolder(folder.get(), "", 0); !result.ok()) return result;
  return packer.Send(TarEnd());
}

FileResult UnpackFolder(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  const std::string& path = start.path();
  if (mkdir(path.c_str(), start.has_mode() ? start.mode() : 0755) != 0 && errno != EEXIST) {
    return FileErrno(Quoted(path));
  }
  const Fd folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC));
  if (!folder.valid()) return FileErrno(Quoted(path));
  if (!peer->SendHead(v1::FileHead())) return {};
  uint64_t entries = 0;
  if (FileResult result = Unpacker(folder.get(), peer).Run(&entries); !result.ok()) return result;
  if (syncfs(folder.get()) != 0) return FileErrno("write to the disk");
  end->set_entries(entries);
  return StatPath(path, end->mutable_row());
}

}  // namespace bunker::guest
