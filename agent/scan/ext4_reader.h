// Reads files and folders of a baked ext4 file through libext2fs, from a descriptor, without ever
// mounting it. Read-only: there is no way to write in it.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct struct_ext2_filsys;

namespace bunker::agent {

class Ext4Reader {
 public:
  enum class Type { kFile, kFolder, kOther };
  struct Entry {
    std::string name;
    uint32_t inode = 0;
    Type type = Type::kOther;
  };

  // `fd` must stay open as long as the reader is there.
  static absl::StatusOr<std::unique_ptr<Ext4Reader>> Open(int fd);
  ~Ext4Reader();
  Ext4Reader(const Ext4Reader&) = delete;
  Ext4Reader& operator=(const Ext4Reader&) = delete;

  static uint32_t root();

  // Follows a few symbolic links, all within the image. kNotFound.
  absl::StatusOr<uint32_t> Find(const std::string& path) const;

  // A regular file's first `max_bytes`. With `whole`, kResourceExhausted where there is more.
  absl::StatusOr<std::string> Read(uint32_t inode, size_t max_bytes, bool whole = true) const;

  // What is in the folder, without . and .., at most `max_entries` (else kResourceExhausted).
  absl::StatusOr<std::vector<Entry>> List(uint32_t inode, size_t max_entries) const;

 private:
  Ext4Reader() = default;

  struct_ext2_filsys* filesystem_ = nullptr;
};

}  // namespace bunker::agent
