#include "agent/net/handed_out.h"

#include <algorithm>

namespace bunker::agent {
namespace {

constexpr size_t kMaxEntries = 4096;

}  // namespace

void HandedOut::Add(Ipv4 address, const std::string& name, absl::Duration until) {
  const auto [it, added] = entries_.try_emplace({address, name}, until);
  it->second = std::max(it->second, until);
  if (added && entries_.size() > kMaxEntries) MakeRoom();
}

void HandedOut::MakeRoom() {
  const auto first =
      std::min_element(entries_.begin(), entries_.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  entries_.erase(first);
}

bool HandedOut::Holds(Ipv4 address, const std::string& name, absl::Duration now) const {
  const auto it = entries_.find({address, name});
  return it != entries_.end() && it->second > now;
}

bool HandedOut::HoldsAny(Ipv4 address, absl::Duration now) const {
  for (auto it = entries_.lower_bound({address, ""});
       it != entries_.end() && it->first.first == address; ++it) {
    if (it->second > now) return true;
  }
  return false;
}

}  // namespace bunker::agent
