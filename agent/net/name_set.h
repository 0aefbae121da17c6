// Host names that are allowed: exact ones and everything below one ("*.x.y").
//
// Thread-safe once made.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace bunker::agent {

// Lower case and without a final dot; "" where it is no host name (RFC 1035 lengths, letters,
// digits, '-' and '_').
std::string CanonicalName(std::string_view name);

class NameSet {
 public:
  NameSet() = default;
  // Entries that are neither a host name nor "*." before one are left out.
  explicit NameSet(const std::vector<std::string>& patterns);

  // `name` must be canonical. "*.x.y" allows what is below x.y, not x.y itself.
  bool Allows(std::string_view name) const;
  bool empty() const { return exact_.empty() && below_.empty(); }

 private:
  std::set<std::string, std::less<>> exact_;
  std::set<std::string, std::less<>> below_;
};

}  // namespace bunker::agent
