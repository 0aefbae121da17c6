// Ids by the moment at which they are to be looked at: what time does to the engine costs what is
// due, not what there is.
//
// A look decides afresh and arms the next one, so that an id may be armed too early at no harm;
// arming never puts a look off. Ties go by id: the order follows from the content alone.
// Not thread-safe: belongs to the engine.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/time/time.h"

namespace bunker::controller {

class DueQueue {
 public:
  // `id` is looked at by then, or earlier where it was armed for earlier. InfiniteFuture: never.
  void ArmBy(const std::string& id, absl::Time at) {
    if (at == absl::InfiniteFuture()) return;
    const auto [it, added] = due_.try_emplace(id, at);
    if (!added) {
      if (it->second <= at) return;
      order_.erase({it->second, &it->first});
      it->second = at;
    }
    order_.insert({at, &it->first});
  }

  void Disarm(const std::string& id) {
    const auto it = due_.find(id);
    if (it == due_.end()) return;
    order_.erase({it->second, &it->first});
    due_.erase(it);
  }

  // The id that is due for longest, no longer armed; nothing where none is due by `now`.
  std::optional<std::string> PopDue(absl::Time now) {
    if (order_.empty() || order_.begin()->first > now) return std::nullopt;
    const std::string id = *order_.begin()->second;
    order_.erase(order_.begin());
    due_.erase(id);
    return id;
  }

  size_t size() const { return due_.size(); }

 private:
  using Entry = std::pair<absl::Time, const std::string*>;  // the id is due_'s key
  struct Sooner {
    bool operator()(const Entry& a, const Entry& b) const {
      return a.first != b.first ? a.first < b.first : *a.second < *b.second;
    }
  };

  std::unordered_map<std::string, absl::Time> due_;
  std::set<Entry, Sooner> order_;
};

}  // namespace bunker::controller
