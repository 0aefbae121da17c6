// SHA-256 (FIPS 180-4) over OpenSSL's EVP, which takes the CPU's SHA instructions.
// Not thread-safe: one object, one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace bunker {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(const void* data, size_t size);
  void Update(std::string_view data) { Update(data.data(), data.size()); }
  // The 32 raw bytes; the object starts over afterwards.
  std::string Finish();

 private:
  struct Deleter { void operator()(evp_md_ctx_st*) const; };
  std::unique_ptr<evp_md_ctx_st, Deleter> context_;
};

// 64 hex digits.
std::string Sha256Hex(std::string_view data);

}  // namespace bunker
