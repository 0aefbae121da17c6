#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/guest/file_ops.h"
#include "agent/guest/new_file.h"

namespace bunker::guest {
namespace {

// Where the bytes go: the file that a symbolic link names, not the link's place.
FileResult ResolveTarget(const std::string& asked, std::string* target, struct stat* facts,
                         bool* exists) {
  *target = asked;
  *exists = lstat(asked.c_str(), facts) == 0;
  if (!*exists && errno != ENOENT) return FileErrno(Quoted(asked));
  if (*exists && S_ISLNK(facts->st_mode)) {
    char* real = realpath(asked.c_str(), nullptr);
    if (real == nullptr) return FileErrno(Quoted(asked) + ", a symbolic link");
    *target = real;
    free(real);
    if (lstat(target->c_str(), facts) != 0) return FileErrno(Quoted(asked));
  }
  if (asked.back() == '/' || (*exists && S_ISDIR(facts->st_mode))) {
    return FileFailure(v1::FileEnd::WRONG_TYPE,
                       Quoted(asked) + " is a folder; name a file, or send a tar to it");
  }
  if (*exists && !S_ISREG(facts->st_mode)) {
    return FileFailure(v1::FileEnd::WRONG_TYPE,
                       Quoted(asked) + " is a device, a pipe or a socket; it is not replaced");
  }
  return {};
}

// Told at once, not after the disk has been filled for nothing.
FileResult CheckRoom(const std::string& folder, uint64_t size) {
  struct statvfs facts{};
  if (statvfs(folder.c_str(), &facts) != 0) return {};
  if (size / facts.f_frsize <= facts.f_bavail) return {};
  errno = ENOSPC;
  return FileErrno("the file needs " + std::to_string(size) + " bytes, free are " +
                   std::to_string(facts.f_bavail * facts.f_frsize));
}

// False: the peer is gone, and nothing is to be told.
bool TakeData(FilePeer* peer, NewFile* file, FileResult* result) {
  for (;;) {
    std::string_view data;
    v1::FileCommit commit;
    switch (peer->Receive(&data, &commit)) {
      case FilePeer::Received::kGone:
        return false;
      case FilePeer::Received::kCommit:
        if (commit.size() != file->size()) {
          *result = FileFailure(v1::FileEnd::INVALID, "the data that came is not all of it");
        }
        return true;
      case FilePeer::Received::kData:
        *result = file->Append(data);
        if (!result->ok()) return true;
    }
  }
}

}  // namespace

FileResult WriteFile(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  std::string target;
  struct stat old{};
  bool exists = false;
  if (FileResult result = ResolveTarget(start.path(), &target, &old, &exists); !result.ok()) {
    return result;
  }
  const std::string folder = ParentOf(target);
  if (start.has_size()) {
    if (FileResult result = CheckRoom(folder, start.size()); !result.ok()) return result;
  }
  NewFile file;
  if (FileResult result = file.Create(folder); !result.ok()) return result;
  v1::FileHead head;
  if (!peer->SendHead(head)) return {};
  FileResult result;
  if (!TakeData(peer, &file, &result)) return {};
  if (!result.ok()) return result;
  const mode_t mode = start.has_mode() ? start.mode() : exists ? old.st_mode & 07777 : 0644;
  if (exists && geteuid() == 0) file.KeepOwner(old.st_uid, old.st_gid);
  if (result = file.Publish(target, mode); !result.ok()) return result;
  return StatPath(target, end->mutable_row());
}

}  // namespace bunker::guest
