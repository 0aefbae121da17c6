#include "agent/net/name_set.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxNameBytes = 253;
constexpr size_t kMaxLabelBytes = 63;

}  // namespace

std::string CanonicalName(std::string_view name) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  if (name.empty() || name.size() > kMaxNameBytes) return "";
  std::string out;
  size_t label = 0;
  for (const char c : name) {
    if (c == '.') {
      if (label == 0) return "";
      label = 0;
    } else if (++label > kMaxLabelBytes) {
      return "";
    }
    const char low = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const bool plain = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9') || low == '-' ||
                       low == '_' || low == '.';
    if (!plain) return "";
    out.push_back(low);
  }
  return label == 0 ? "" : out;
}

NameSet::NameSet(const std::vector<std::string>& patterns) {
  for (const std::string_view pattern : patterns) {
    const bool wide = pattern.substr(0, 2) == "*.";
    std::string name = CanonicalName(wide ? pattern.substr(2) : pattern);
    if (!name.empty()) (wide ? below_ : exact_).insert(std::move(name));
  }
}

bool NameSet::Allows(std::string_view name) const {
  if (exact_.count(name) != 0) return true;
  for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
    if (below_.count(name.substr(dot + 1)) != 0) return true;
  }
  return false;
}

}  // namespace bunker::agent
