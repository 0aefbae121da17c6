// The Merkle tree of fs-verity (SHA-256, 4 KiB blocks, no salt), built in any order while the file
// is written. Blocks never told about are holes.
//
// Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/bake/data_layout.h"

struct evp_md_ctx_st;

namespace bunker::agent {

class VerityTree {
 public:
  VerityTree();
  ~VerityTree();

  // `data` is a whole number of blocks, the first of them number `block`.
  void Set(uint64_t block, std::string_view data);
  void SetHole(uint64_t block, uint64_t count);

  // The digest of a file of `size_bytes`, "fsverity-sha256:<hex>", as `fsverity digest` prints it.
  // Call once, when all is set.
  std::string Finish(uint64_t size_bytes);

  // After Finish(): the tree as the kernel stores it, the level under the root first and the
  // blocks' hashes last; it is what `fsverity digest --out-merkle-tree` writes. Empty for a file of
  // one block.
  absl::Status WriteTo(int fd) const;

 private:
  static constexpr size_t kHashBytes = 32;
  static constexpr size_t kHashesPerPage = kBlockBytes / kHashBytes;
  using Page = std::array<char, kBlockBytes>;
  using Level = std::vector<std::unique_ptr<Page>>;  // null: all hashes are a hole's

  void Hash(const char* data, size_t size, char* out);
  Page* MutablePage(uint64_t page);

  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
  Level leaves_;
  std::vector<Level> upper_;  // upper_[0] lies over the leaves
  Page hole_page_;            // a leaf page whose blocks are all holes
};

}  // namespace bunker::agent
