// One member of a layer, as the merge needs it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "agent/bake/data_layout.h"
#include "agent/bake/path_table.h"

namespace bunker::agent {

enum class MemberType : uint8_t {
  kRegular,
  kDirectory,
  kSymlink,
  kHardLink,
  kCharDevice,
  kBlockDevice,
  kFifo,
  kWhiteout,  // hides the path in the layers below
  kOpaque,    // hides what lies below the path in the layers below
};

// Full names ("security.capability"); values as the kernel's getxattr(2) returns them.
using Xattrs = std::vector<std::pair<std::string, std::string>>;

struct FileMetadata {
  uint16_t mode = 0755;  // permission bits with setuid, setgid and sticky
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
};

// As read from the tar stream; names are raw bytes.
struct TarMember {
  std::string name;
  std::string link;  // of symbolic and hard links
  MemberType type = MemberType::kRegular;
  FileMetadata metadata;
  uint64_t size = 0;  // apparent, of regular files
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  Xattrs xattrs;
};

// As kept until the layers are merged.
struct Member {
  PathId path = kRootPath;
  MemberType type = MemberType::kRegular;
  bool data_dropped = false;  // the data looked hidden and was not written
  FileMetadata metadata;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  uint64_t size = 0;
  std::string link;
  Xattrs xattrs;
  std::vector<DataRun> runs;
};

}  // namespace bunker::agent
