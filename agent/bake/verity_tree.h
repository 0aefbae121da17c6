// The Merkle tree of fs-verity (SHA-256, 4 KiB blocks, no salt), built in any order while the file
// is written. Blocks never told about are holes.
//
// Memory is bounded: of the blocks' hashes a few MiB are held, the rest lies in the tree's own
// file, where it belongs in the end.
//
// Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/data_layout.h"

struct evp_md_ctx_st;

namespace bunker::agent {

class VerityTree {
 public:
  // `fd`, empty and open for reading and writing, takes what memory should not hold, for a file of
  // up to `max_bytes`; it stays the caller's. -1: everything stays in memory (8 MiB a GiB).
  VerityTree(int fd, uint64_t max_bytes);
  VerityTree() : VerityTree(-1, 0) {}
  ~VerityTree();

  // `data` is a whole number of blocks, the first of them number `block`. Errors: the file's.
  absl::Status Set(uint64_t block, std::string_view data);
  absl::Status SetHole(uint64_t block, uint64_t count);

  // The digest of a file of `size_bytes`, "fsverity-sha256:<hex>", as `fsverity digest` prints it.
  // Call once, when all is set.
  absl::StatusOr<std::string> Finish(uint64_t size_bytes);

  // After Finish(): the tree as the kernel stores it, the level under the root first and the
  // blocks' hashes last; it is what `fsverity digest --out-merkle-tree` writes. Empty for a file of
  // one block. `fd` is the constructor's, where that had one.
  absl::Status WriteTo(int fd) const;

  // How many pages of the blocks' hashes are held in memory at most, where there is a file.
  static constexpr size_t kMaxHeldPages = 2048;

 private:
  static constexpr size_t kHashBytes = 32;
  static constexpr size_t kHashesPerPage = kBlockBytes / kHashBytes;
  using Page = std::array<char, kBlockBytes>;
  using PagePtr = std::unique_ptr<Page>;

  // A page of the blocks' hashes.
  struct Leaf {
    PagePtr held;
    bool in_file = false;  // neither held nor in the file: all its blocks are holes
  };

  void Hash(const char* data, size_t size, char* out);
  absl::StatusOr<Page*> MutablePage(uint64_t page);
  absl::Status MakeRoom();
  absl::Status ReadPage(uint64_t page, Page* out) const;
  // The page's bytes, from wherever they are; `scratch` may hold them.
  absl::StatusOr<const Page*> Find(uint64_t page, Page* scratch) const;
  static uint64_t LevelPages(uint64_t pages) {
    return (pages + kHashesPerPage - 1) / kHashesPerPage;
  }
  // Of all levels above `leaves` pages of hashes.
  static uint64_t PagesAbove(uint64_t leaves);

  const int fd_;
  const uint64_t file_start_;  // where page 0 lies in the file
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
  std::vector<Leaf> leaves_;
  uint64_t blocks_ = 0;                      // of the file, after Finish()
  std::deque<uint64_t> held_;                // in the order in which they came
  std::vector<std::vector<PagePtr>> upper_;  // upper_[0] lies over the leaves
  Page hole_page_;                           // a leaf page whose blocks are all holes
};

}  // namespace bunker::agent
