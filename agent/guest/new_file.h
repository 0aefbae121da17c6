// A file that is written under a temporary name in its folder and then put under its own, whole and
// on disk; or removed with this object.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/guest/fd.h"
#include "agent/guest/file_peer.h"

namespace bunker::guest {

class NewFile {
 public:
  NewFile() = default;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  // An empty one in `folder`, readable by its owner alone.
  FileResult Create(const std::string& folder);
  // The same below an open folder; neither may be closed before this is done.
  FileResult CreateAt(int folder_fd);

  // Zeros become holes.
  FileResult Append(std::string_view data);
  uint64_t size() const { return size_; }
  int fd() const { return fd_.get(); }
  void KeepOwner(uid_t uid, gid_t gid);

  // Mode, sync, rename over what is there, sync of the folder. `target` is in the folder.
  FileResult Publish(const std::string& target, mode_t mode);
  // The same with a name below the folder of CreateAt(); syncs nothing.
  FileResult PublishAt(const std::string& name, mode_t mode);

 private:
  FileResult Finish(mode_t mode);

  Fd own_folder_;
  int folder_ = -1;
  std::string name_;  // "": nothing to remove
  Fd fd_;
  uint64_t size_ = 0;
};

}  // namespace bunker::guest
