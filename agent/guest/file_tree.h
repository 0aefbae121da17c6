// Work on whole folders: removing, and copying between file systems. By open folders, never through
// a symbolic link, so that nothing outside of the tree is touched whatever changes meanwhile.
#pragma once

#include <functional>
#include <string>

#include "agent/guest/file_peer.h"

namespace bunker::guest {

// How deep folders may be inside one another.
inline constexpr int kMaxFolderDepth = 400;

// Removes `name` below `folder_fd` with all that is in it. `*entries` counts up.
FileResult RemoveTree(int folder_fd, const std::string& name, const FilePeer* peer,
                      uint64_t* entries);

// Copies `name` below `from_fd` to `to_name` below `to_fd`, where nothing is: files, folders,
// symbolic links, with mode, time and, for root, owner. Leaves what it made on an error.
FileResult CopyTree(int from_fd, const std::string& name, int to_fd, const std::string& to_name,
                    const FilePeer* peer);

// Calls `visit` with every name in the folder but "." and ".."; an error of it ends the walk.
FileResult ForEachName(int folder_fd, const std::function<FileResult(const std::string&)>& visit);

}  // namespace bunker::guest
