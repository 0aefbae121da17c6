// 1.2.3a_rc1_p2-r4 as Alpine's apk orders it: numbers, one letter, suffixes, and the package's
// revision. A number after a dot that begins with zeros is a fraction: the more zeros, the less.
#include <cstdint>
#include <vector>

#include "common/version/text.h"
#include "common/version/version.h"

namespace bunker {
namespace {

using version::IsDigit;
using version::IsLower;

// In apk's own order: where one version ends earlier, the kind of what is left decides.
enum class Kind { kZeros, kNumber, kLetter, kSuffix, kSuffixNumber, kRevision, kEnd };

struct Token {
  Kind kind;
  int64_t value;
};

constexpr std::string_view kBefore[] = {"alpha", "beta", "pre", "rc"};
constexpr std::string_view kAfter[] = {"cvs", "svn", "git", "hg", "p"};
constexpr size_t kMaxDigits = 17;

class Tokenizer {
 public:
  explicit Tokenizer(std::string_view text) : rest_(text) {}

  // Nothing where the text is no version.
  std::optional<std::vector<Token>> Run() {
    if (!Numbers()) return std::nullopt;
    if (!rest_.empty() && IsLower(rest_[0])) {
      tokens_.push_back({Kind::kLetter, rest_[0]});
      rest_.remove_prefix(1);
      // "1.2a3" is rare, and legal.
      if (!rest_.empty() && IsDigit(rest_[0]) && !Numbers()) return std::nullopt;
    }
    while (!rest_.empty() && rest_[0] == '_') {
      if (!Suffix()) return std::nullopt;
    }
    SkipHash();
    if (rest_.substr(0, 2) == "-r") {
      rest_.remove_prefix(2);
      if (!Number(Kind::kRevision)) return std::nullopt;
    }
    if (!rest_.empty()) return std::nullopt;
    tokens_.push_back({Kind::kEnd, 0});
    return std::move(tokens_);
  }

 private:
  bool Number(Kind kind) {
    const std::string_view digits = version::TakeWhile(&rest_, IsDigit);
    if (digits.empty() || digits.size() > kMaxDigits) return false;
    int64_t value = 0;
    for (const char c : digits) value = value * 10 + (c - '0');
    tokens_.push_back({kind, value});
    return true;
  }

  bool Numbers() {
    if (!Number(Kind::kNumber)) return false;
    while (!rest_.empty() && rest_[0] == '.') {
      rest_.remove_prefix(1);
      const std::string_view zeros = version::TakeWhile(&rest_, [](char c) { return c == '0'; });
      if (!zeros.empty()) {
        tokens_.push_back({Kind::kZeros, -static_cast<int64_t>(zeros.size())});
        if (rest_.empty() || !IsDigit(rest_[0])) continue;
        if (!Number(Kind::kNumber)) return false;
      } else if (!Number(Kind::kZeros)) {
        return false;
      }
    }
    return true;
  }

  bool Suffix() {
    rest_.remove_prefix(1);
    const std::string_view name = version::TakeWhile(&rest_, IsLower);
    int64_t value = 0;
    bool known = false;
    for (size_t i = 0; i < std::size(kBefore); ++i) {
      if (name != kBefore[i]) continue;
      value = static_cast<int64_t>(i) - static_cast<int64_t>(std::size(kBefore));
      known = true;
    }
    for (size_t i = 0; i < std::size(kAfter); ++i) {
      if (name != kAfter[i]) continue;
      value = static_cast<int64_t>(i);
      known = true;
    }
    if (!known) return false;
    tokens_.push_back({Kind::kSuffix, value});
    if (!rest_.empty() && IsDigit(rest_[0])) return Number(Kind::kSuffixNumber);
    return true;
  }

  // The commit that newer versions name orders nothing.
  void SkipHash() {
    if (rest_.empty() || rest_[0] != '~') return;
    rest_.remove_prefix(1);
    version::TakeWhile(&rest_, [](char c) { return IsDigit(c) || (c >= 'a' && c <= 'f'); });
  }

  std::string_view rest_;
  std::vector<Token> tokens_;
};

bool IsBefore(const Token& token) {
  return token.kind == Kind::kSuffix && token.value < 0;
}

}  // namespace

std::optional<int> CompareApk(std::string_view a, std::string_view b) {
  const auto left = Tokenizer(a).Run();
  const auto right = Tokenizer(b).Run();
  if (!left || !right) return std::nullopt;
  for (size_t i = 0; i < left->size() && i < right->size(); ++i) {
    const Token& one = (*left)[i];
    const Token& other = (*right)[i];
    if (one.kind == other.kind) {
      if (one.value != other.value) return one.value < other.value ? -1 : 1;
      continue;
    }
    if (IsBefore(one)) return -1;
    if (IsBefore(other)) return 1;
    return one.kind > other.kind ? -1 : 1;
  }
  return 0;
}

}  // namespace bunker
