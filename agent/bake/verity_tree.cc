#include "agent/bake/verity_tree.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/files.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

absl::Status WriteAt(int fd, const char* data, size_t size, uint64_t offset) {
  return Annotate(WriteAllAt(fd, {data, size}, offset),
                  "writing the verity tree; free space on the worker's disk");
}

}  // namespace

VerityTree::VerityTree(int fd, uint64_t max_bytes)
    : fd_(fd),
      file_start_(PagesAbove(LevelPages(BlocksFor(max_bytes))) * kBlockBytes),
      context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  // Fetched once: an init that names the algorithm looks it up anew for every 4 KiB.
  const std::unique_ptr<EVP_MD, void (*)(EVP_MD*)> sha256(
      EVP_MD_fetch(nullptr, "SHA2-256", nullptr), &EVP_MD_free);
  BUNKER_CHECK(context_ != nullptr && sha256 != nullptr &&
               EVP_DigestInit_ex2(context_.get(), sha256.get(), nullptr) == 1);
  const std::string zeros(kBlockBytes, '\0');
  Hash(zeros.data(), zeros.size(), hole_page_.data());
  for (size_t i = 1; i < kHashesPerPage; ++i) {
    std::memcpy(hole_page_.data() + i * kHashBytes, hole_page_.data(), kHashBytes);
  }
}

VerityTree::~VerityTree() = default;

uint64_t VerityTree::PagesAbove(uint64_t leaves) {
  uint64_t pages = 0;
  while (leaves > 1) {
    leaves = LevelPages(leaves);
    pages += leaves;
  }
  return pages;
}

void VerityTree::Hash(const char* data, size_t size, char* out) {
  unsigned int length = 0;
  BUNKER_CHECK(EVP_DigestInit_ex2(context_.get(), nullptr, nullptr) == 1 &&
               EVP_DigestUpdate(context_.get(), data, size) == 1 &&
               EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(out), &length) ==
                   1);
}

absl::Status VerityTree::ReadPage(uint64_t page, Page* out) const {
  size_t done = 0;
  while (done < kBlockBytes) {
    const ssize_t count = pread(fd_, out->data() + done, kBlockBytes - done,
                                static_cast<off_t>(file_start_ + page * kBlockBytes + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(count == 0 ? EIO : errno, "reading the verity tree");
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::StatusOr<const VerityTree::Page*> VerityTree::Find(uint64_t page, Page* scratch) const {
  const Leaf& leaf = leaves_[page];
  if (leaf.held) return leaf.held.get();
  if (!leaf.in_file) return &hole_page_;
  RETURN_IF_ERROR(ReadPage(page, scratch));
  return scratch;
}

// Data goes down front to back, so the page that came first is the one that is done with.
absl::Status VerityTree::MakeRoom() {
  if (fd_ < 0) return absl::OkStatus();
  while (held_.size() >= kMaxHeldPages) {
    const uint64_t page = held_.front();
    held_.pop_front();
    Leaf& leaf = leaves_[page];
    if (!leaf.held) continue;  // a hole again
    RETURN_IF_ERROR(WriteAt(fd_, leaf.held->data(), kBlockBytes, file_start_ + page * kBlockBytes));
    leaf.held.reset();
    leaf.in_file = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<VerityTree::Page*> VerityTree::MutablePage(uint64_t page) {
  if (page >= leaves_.size()) leaves_.resize(page + 1);
  if (!leaves_[page].held) {
    RETURN_IF_ERROR(MakeRoom());
    auto made = std::make_unique<Page>(hole_page_);
    if (leaves_[page].in_file) RETURN_IF_ERROR(ReadPage(page, made.get()));
    leaves_[page].held = std::move(made);
    leaves_[page].in_file = false;
    held_.push_back(page);
  }
  return leaves_[page].held.get();
}

absl::Status VerityTree::Set(uint64_t block, std::string_view data) {
  BUNKER_CHECK(data.size() % kBlockBytes == 0);
  for (size_t at = 0; at < data.size(); at += kBlockBytes, ++block) {
    ASSIGN_OR_RETURN(Page * page, MutablePage(block / kHashesPerPage));
    Hash(data.data() + at, kBlockBytes, page->data() + block % kHashesPerPage * kHashBytes);
  }
  return absl::OkStatus();
}

absl::Status VerityTree::SetHole(uint64_t block, uint64_t count) {
  while (count > 0) {
    const uint64_t page = block / kHashesPerPage;
    const uint64_t first = block % kHashesPerPage;
    const uint64_t here = std::min(count, kHashesPerPage - first);
    if (page >= leaves_.size()) return absl::OkStatus();
    Leaf& leaf = leaves_[page];
    if (here == kHashesPerPage) {
      leaf.held.reset();
      leaf.in_file = false;
    } else if (leaf.held || leaf.in_file) {
      ASSIGN_OR_RETURN(Page * mutable_page, MutablePage(page));
      std::memcpy(mutable_page->data() + first * kHashBytes, hole_page_.data(), here * kHashBytes);
    }
    block += here;
    count -= here;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> VerityTree::Finish(uint64_t size_bytes) {
  const uint64_t blocks = blocks_ = BlocksFor(size_bytes);
  leaves_.resize(LevelPages(blocks));
  // What lies past the end of a level is zero bytes, not holes.
  if (const uint64_t used = blocks % kHashesPerPage; used != 0) {
    ASSIGN_OR_RETURN(Page * last, MutablePage(leaves_.size() - 1));
    std::memset(last->data() + used * kHashBytes, 0, kBlockBytes - used * kHashBytes);
  }
  char hole_hash[kHashBytes];
  Hash(hole_page_.data(), kBlockBytes, hole_hash);
  Page scratch;
  char top[kHashBytes] = {};  // of the only page of the highest level
  for (uint64_t below = leaves_.size(); below > 0; below = LevelPages(below)) {
    std::vector<PagePtr> level(below > 1 ? LevelPages(below) : 0);
    for (PagePtr& page : level) page = std::make_unique<Page>(Page{});
    for (uint64_t i = 0; i < below; ++i) {
      char* out =
          below == 1 ? top : level[i / kHashesPerPage]->data() + i % kHashesPerPage * kHashBytes;
      if (!upper_.empty()) {
        Hash(upper_.back()[i]->data(), kBlockBytes, out);
      } else if (!leaves_[i].held && !leaves_[i].in_file) {
        std::memcpy(out, hole_hash, kHashBytes);
      } else {
        ASSIGN_OR_RETURN(const Page* page, Find(i, &scratch));
        Hash(page->data(), kBlockBytes, out);
      }
    }
    if (below == 1) break;
    upper_.push_back(std::move(level));
  }
  // struct fsverity_descriptor: version, algorithm (SHA-256), log2 of the block, no salt, …
  char descriptor[256] = {1, 1, 12, 0};
  for (int i = 0; i < 8; ++i) descriptor[8 + i] = static_cast<char>(size_bytes >> (8 * i));
  if (blocks == 1) {
    ASSIGN_OR_RETURN(const Page* only, Find(0, &scratch));
    std::memcpy(descriptor + 16, only->data(), kHashBytes);
  } else if (blocks > 1) {
    std::memcpy(descriptor + 16, top, kHashBytes);
  }
  std::string digest(kHashBytes, '\0');
  Hash(descriptor, sizeof(descriptor), digest.data());
  return "fsverity-sha256:" + HexEncode(digest);
}

absl::Status VerityTree::WriteTo(int fd) const {
  if (blocks_ <= 1) return absl::OkStatus();
  uint64_t at = 0;
  for (auto level = upper_.rbegin(); level != upper_.rend(); ++level) {
    for (const PagePtr& page : *level) {
      RETURN_IF_ERROR(WriteAt(fd, page->data(), kBlockBytes, at));
      at += kBlockBytes;
    }
  }
  // Pages in the file move forward only, for the levels above never need more than was left for
  // them: what has not been read yet is never overwritten.
  BUNKER_CHECK(fd != fd_ || at <= file_start_);
  Page scratch;
  std::string piece;
  for (uint64_t i = 0; i < leaves_.size(); ++i) {
    ASSIGN_OR_RETURN(const Page* page, Find(i, &scratch));
    piece.append(page->data(), kBlockBytes);
    if (piece.size() < 64 * kBlockBytes && i + 1 < leaves_.size()) continue;
    RETURN_IF_ERROR(WriteAt(fd, piece.data(), piece.size(), at));
    at += piece.size();
    piece.clear();
  }
  if (ftruncate(fd, static_cast<off_t>(at)) != 0) {
    return ErrnoError(errno, "finishing the verity tree");
  }
  return absl::OkStatus();
}

}  // namespace bunker::agent
