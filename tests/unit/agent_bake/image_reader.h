// Reads a baked file back, with libext2fs' own reader: nothing of the writer is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace bunker::agent::test {

struct ImageEntry {
  char type = '?';  // as in tests: f d l c b p
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime = 0;
  uint32_t mtime_nanoseconds = 0;
  uint64_t size = 0;
  std::string content;  // of files (those over 64 MiB are not read) and links
  uint32_t major = 0;
  uint32_t minor = 0;
  uint32_t inode = 0;
  uint32_t links = 0;
  uint32_t flags = 0;
  uint64_t blocks = 0;  // of 512 bytes
  std::map<std::string, std::string> xattrs;
};

// By path, "" being the root and others without a leading slash. Aborts the test where the file is
// no ext4 file.
std::map<std::string, ImageEntry> ReadImage(const std::string& path);

// "" where `e2fsck -fn` finds nothing wrong, otherwise what it says.
std::string CheckImage(const std::string& path);

// The output of `command`, "" where it fails.
std::string RunCommand(const std::string& command);

}  // namespace bunker::agent::test
