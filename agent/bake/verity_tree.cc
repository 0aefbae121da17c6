#include "agent/bake/verity_tree.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstring>

#include "common/base/files.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

VerityTree::VerityTree() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  BUNKER_CHECK(context_ != nullptr);
  const std::string zeros(kBlockBytes, '\0');
  Hash(zeros.data(), zeros.size(), hole_page_.data());
  for (size_t i = 1; i < kHashesPerPage; ++i) {
    std::memcpy(hole_page_.data() + i * kHashBytes, hole_page_.data(), kHashBytes);
  }
}

VerityTree::~VerityTree() = default;

void VerityTree::Hash(const char* data, size_t size, char* out) {
  unsigned int length = 0;
  BUNKER_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1 &&
               EVP_DigestUpdate(context_.get(), data, size) == 1 &&
               EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(out), &length) ==
                   1);
}

VerityTree::Page* VerityTree::MutablePage(uint64_t page) {
  if (page >= leaves_.size()) leaves_.resize(page + 1);
  if (!leaves_[page]) leaves_[page] = std::make_unique<Page>(hole_page_);
  return leaves_[page].get();
}

void VerityTree::Set(uint64_t block, std::string_view data) {
  BUNKER_CHECK(data.size() % kBlockBytes == 0);
  for (size_t at = 0; at < data.size(); at += kBlockBytes, ++block) {
    Hash(data.data() + at, kBlockBytes,
         MutablePage(block / kHashesPerPage)->data() + block % kHashesPerPage * kHashBytes);
  }
}

void VerityTree::SetHole(uint64_t block, uint64_t count) {
  for (; count > 0; --count, ++block) {
    const uint64_t page = block / kHashesPerPage;
    if (page >= leaves_.size()) return;
    if (!leaves_[page]) continue;
    std::memcpy(leaves_[page]->data() + block % kHashesPerPage * kHashBytes, hole_page_.data(),
                kHashBytes);
  }
}

std::string VerityTree::Finish(uint64_t size_bytes) {
  const uint64_t blocks = BlocksFor(size_bytes);
  leaves_.resize((blocks + kHashesPerPage - 1) / kHashesPerPage);
  // What lies past the end of a level is zero bytes, not holes.
  if (const uint64_t used = blocks % kHashesPerPage; used != 0) {
    Page* last = MutablePage(leaves_.size() - 1);
    std::memset(last->data() + used * kHashBytes, 0, kBlockBytes - used * kHashBytes);
  }
  char hole_hash[kHashBytes];
  Hash(hole_page_.data(), kBlockBytes, hole_hash);
  const Level* below = &leaves_;
  while (below->size() > 1) {
    Level level((below->size() + kHashesPerPage - 1) / kHashesPerPage);
    for (auto& page : level) {
      page = std::make_unique<Page>();
      page->fill(0);
    }
    for (size_t i = 0; i < below->size(); ++i) {
      char* out = level[i / kHashesPerPage]->data() + i % kHashesPerPage * kHashBytes;
      if (const auto& page = (*below)[i]) {
        Hash(page->data(), kBlockBytes, out);
      } else {
        std::memcpy(out, hole_hash, kHashBytes);
      }
    }
    upper_.push_back(std::move(level));
    below = &upper_.back();
  }
  // struct fsverity_descriptor: version, algorithm (SHA-256), log2 of the block, no salt, …
  char descriptor[256] = {1, 1, 12, 0};
  for (int i = 0; i < 8; ++i) descriptor[8 + i] = static_cast<char>(size_bytes >> (8 * i));
  if (blocks == 1) {
    std::memcpy(descriptor + 16, leaves_[0]->data(), kHashBytes);
  } else if (blocks > 1) {
    const auto& top = (*below)[0];
    Hash(top ? top->data() : hole_page_.data(), kBlockBytes, descriptor + 16);
  }
  std::string digest(kHashBytes, '\0');
  Hash(descriptor, sizeof(descriptor), digest.data());
  return "fsverity-sha256:" + HexEncode(digest);
}

absl::Status VerityTree::WriteTo(int fd) const {
  const auto write_level = [&](const Level& level) -> absl::Status {
    for (const auto& page : level) {
      const Page& bytes = page ? *page : hole_page_;
      RETURN_IF_ERROR(WriteAll(fd, std::string_view(bytes.data(), bytes.size())));
    }
    return absl::OkStatus();
  };
  for (auto level = upper_.rbegin(); level != upper_.rend(); ++level) {
    RETURN_IF_ERROR(write_level(*level));
  }
  return write_level(leaves_);
}

}  // namespace bunker::agent
