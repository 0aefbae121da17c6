// The operations on files, as a child process with the user's rights does them. Blocking; each ends
// early where the peer is gone, and leaves nothing half made behind.
#pragma once

#include <sys/stat.h>

#include <string>

#include "agent/guest/file_peer.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

// A file's bytes, or a folder's rows.
FileResult ReadPath(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end);
// A file that appears whole under its name, in place of one that is there, or not at all.
FileResult WriteFile(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end);

// A folder's content as tar.
FileResult PackFolder(const v1::FileStart& start, FilePeer* peer);
// A tar's content into a folder, which is made where it is missing. Each file appears whole; what
// came before a failure stays.
FileResult UnpackFolder(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end);
FileResult RemovePath(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end);
FileResult MakeFolder(const v1::FileStart& start, v1::FileEnd* end);
FileResult MovePath(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end);

// What changes in a folder, or of a file, from now on: events until it is gone or nobody listens.
FileResult WatchPath(const v1::FileStart& start, FilePeer* peer);

// Of the thing itself, not of what a symbolic link names.
FileResult StatPath(const std::string& path, v1::FileRow* row);

// ---- parts --------------------------------------------------------------------------------

void FillRow(const struct stat& facts, std::string_view name, v1::FileRow* row);
// "/a/b/" → "b"; "/" → "/".
std::string BaseName(std::string_view path);
// "/a/b/" → "/a"; "/" → "/".
std::string ParentOf(std::string_view path);
// For messages: at most 200 bytes of it, in quotes.
std::string Quoted(std::string_view path);

}  // namespace bunker::guest
