// An index: one key to many ids. Empty sets are not kept. Private to the engine's own files.
#pragma once

#include <set>
#include <string>
#include <unordered_map>

namespace bunker::controller {

class MultiIndex {
 public:
  void Add(const std::string& key, const std::string& id) { ids_[key].insert(id); }
  void Remove(const std::string& key, const std::string& id) {
    const auto it = ids_.find(key);
    if (it == ids_.end()) return;
    it->second.erase(id);
    if (it->second.empty()) ids_.erase(it);
  }
  void Set(const std::string& key, const std::string& id, bool in) {
    if (in) {
      Add(key, id);
    } else {
      Remove(key, id);
    }
  }
  const std::set<std::string>& Of(const std::string& key) const {
    static const std::set<std::string> kNone;
    const auto it = ids_.find(key);
    return it == ids_.end() ? kNone : it->second;
  }
  // In no order.
  const std::unordered_map<std::string, std::set<std::string>>& all() const { return ids_; }

 private:
  std::unordered_map<std::string, std::set<std::string>> ids_;
};

}  // namespace bunker::controller
