// [N!]N(.N)*[{a|b|rc}N][.postN][.devN][+local], with the other spellings that PEP 440 forgives.
#include <string>
#include <vector>

#include "common/version/text.h"
#include "common/version/version.h"

namespace bunker {
namespace {

using version::CompareNumbers;
using version::IsAlnum;
using version::IsDigit;

struct Parts {
  std::string epoch;
  std::vector<std::string> release;  // without trailing zeros
  char phase = 0;                    // a, b, c; 0: no pre-release
  std::string phase_number;
  bool has_post = false;
  std::string post;
  bool has_dev = false;
  std::string dev;
  bool has_local = false;
  std::vector<std::string> local;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  std::optional<Parts> Run() {
    if (Peek() == 'v') rest_.remove_prefix(1);
    if (!EpochAndRelease()) return std::nullopt;
    Prerelease();
    Post();
    Dev();
    if (!Local() || !rest_.empty()) return std::nullopt;
    return std::move(parts_);
  }

 private:
  char Peek() const { return rest_.empty() ? '\0' : rest_[0]; }
  static bool Joins(char c) { return c == '.' || c == '-' || c == '_'; }

  std::string Digits() { return std::string(version::TakeWhile(&rest_, IsDigit)); }

  bool EpochAndRelease() {
    std::string first = Digits();
    if (first.empty()) return false;
    if (Peek() == '!') {
      parts_.epoch = std::move(first);
      rest_.remove_prefix(1);
      first = Digits();
      if (first.empty()) return false;
    }
    parts_.release.push_back(std::move(first));
    while (rest_.size() > 1 && rest_[0] == '.' && IsDigit(rest_[1])) {
      rest_.remove_prefix(1);
      parts_.release.push_back(Digits());
    }
    while (!parts_.release.empty() && CompareNumbers(parts_.release.back(), "0") == 0)
      parts_.release.pop_back();
    return true;
  }

  // Takes "[.-_]word[.-_]digits" for one of `words`, longest first; else nothing.
  template <size_t kCount>
  int TakeWord(const std::string_view (&words)[kCount], std::string* number) {
    std::string_view ahead = rest_;
    if (!ahead.empty() && Joins(ahead[0])) ahead.remove_prefix(1);
    for (size_t i = 0; i < kCount; ++i) {
      if (ahead.substr(0, words[i].size()) != words[i]) continue;
      rest_ = ahead.substr(words[i].size());
      // A separator belongs here where nothing else can begin with it.
      if (Joins(Peek())) {
        const char next = rest_.size() > 1 ? rest_[1] : '\0';
        if (IsDigit(next) || next == '\0' || next == '+' || Joins(next)) rest_.remove_prefix(1);
      }
      *number = Digits();
      return static_cast<int>(i);
    }
    return -1;
  }

  void Prerelease() {
    static constexpr std::string_view kWords[] = {"alpha", "beta", "preview", "pre",
                                                  "rc",    "a",    "b",       "c"};
    static constexpr char kPhases[] = {'a', 'b', 'c', 'c', 'c', 'a', 'b', 'c'};
    const int found = TakeWord(kWords, &parts_.phase_number);
    if (found >= 0) parts_.phase = kPhases[found];
  }

  void Post() {
    static constexpr std::string_view kWords[] = {"post", "rev", "r"};
    if (rest_.size() > 1 && rest_[0] == '-' && IsDigit(rest_[1])) {
      rest_.remove_prefix(1);
      parts_.has_post = true;
      parts_.post = Digits();
      return;
    }
    parts_.has_post = TakeWord(kWords, &parts_.post) >= 0;
  }

  void Dev() {
    static constexpr std::string_view kWords[] = {"dev"};
    parts_.has_dev = TakeWord(kWords, &parts_.dev) >= 0;
  }

  bool Local() {
    if (Peek() != '+') return true;
    parts_.has_local = true;
    do {
      rest_.remove_prefix(1);
      const std::string_view part = version::TakeWhile(&rest_, IsAlnum);
      if (part.empty()) return false;
      parts_.local.emplace_back(part);
    } while (!rest_.empty() && Joins(rest_[0]));
    return true;
  }

  std::string_view rest_;
  Parts parts_;
};

std::optional<Parts> Parse(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return std::nullopt;
  text = text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return Parser(lower).Run();
}

int CompareRelease(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  for (size_t i = 0; i < a.size() || i < b.size(); ++i) {
    const int order =
        CompareNumbers(i < a.size() ? a[i] : std::string(), i < b.size() ? b[i] : std::string());
    if (order != 0) return order;
  }
  return 0;
}

// Where a version stands among those of its release: a dev release of nothing else is the oldest,
// then come the pre-releases, then the release itself and what follows it.
int Rank(const Parts& parts) {
  if (parts.phase != 0) return 1;
  return parts.has_dev && !parts.has_post ? 0 : 2;
}

int CompareOptional(bool has_a, const std::string& a, bool has_b, const std::string& b,
                    int without) {
  if (has_a != has_b) return has_a ? -without : without;
  return has_a ? CompareNumbers(a, b) : 0;
}

bool IsNumeric(const std::string& text) {
  return text.find_first_not_of("0123456789") == text.npos;
}

int CompareLocal(const Parts& a, const Parts& b) {
  if (a.has_local != b.has_local) return a.has_local ? 1 : -1;
  for (size_t i = 0; i < a.local.size() && i < b.local.size(); ++i) {
    const bool left = IsNumeric(a.local[i]);
    const bool right = IsNumeric(b.local[i]);
    if (left != right) return left ? 1 : -1;
    const int order = left ? CompareNumbers(a.local[i], b.local[i])
                           : version::Sign(a.local[i].compare(b.local[i]));
    if (order != 0) return order;
  }
  if (a.local.size() == b.local.size()) return 0;
  return a.local.size() < b.local.size() ? -1 : 1;
}

}  // namespace

std::optional<int> ComparePep440(std::string_view a, std::string_view b) {
  const std::optional<Parts> left = Parse(a);
  const std::optional<Parts> right = Parse(b);
  if (!left || !right) return std::nullopt;
  int order = CompareNumbers(left->epoch, right->epoch);
  if (order == 0) order = CompareRelease(left->release, right->release);
  if (order == 0) order = version::Sign(Rank(*left) - Rank(*right));
  if (order == 0) order = version::Sign(left->phase - right->phase);
  if (order == 0) order = CompareNumbers(left->phase_number, right->phase_number);
  // Without a post-release: older. Without a dev release: newer.
  if (order == 0)
    order = CompareOptional(left->has_post, left->post, right->has_post, right->post, -1);
  if (order == 0) order = CompareOptional(left->has_dev, left->dev, right->has_dev, right->dev, 1);
  return order == 0 ? CompareLocal(*left, *right) : order;
}

}  // namespace bunker
