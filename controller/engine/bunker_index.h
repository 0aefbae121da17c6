// Which bunkers a list holds, by who asks, by status and mode and by label: a page costs what it
// shows, however many ended ones there are.
//
// A bunker takes some hundred bytes here: ids are kept as their 16 bytes, in creation order.
// Not thread-safe: belongs to the engine.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/functional/function_ref.h"
#include "controller/engine/specs.h"
#include "controller/model/account.h"
#include "controller/model/bunker.h"

namespace bunker::controller {

class BunkerIndex {
 public:
  // An id's UUID; sorts as the id does.
  struct Key {
    uint64_t high = 0;
    uint64_t low = 0;
    auto operator<=>(const Key&) const = default;
  };
  // Nothing for what is not "bnk_" and 32 hex digits.
  static std::optional<Key> KeyOf(std::string_view id);
  static std::string IdOf(const Key& key);

  void Update(const Bunker* before, const Bunker* after);

  // Ids that `caller` and `filter` may mean, newest first, from below `after_id` ("": from the
  // newest), until `take` says false. Candidates: whoever takes them checks again, for the
  // index narrows by one label only.
  void Walk(const Caller& caller, const BunkerFilter& filter, const std::string& after_id,
            absl::FunctionRef<bool(const std::string& id)> take) const;

 private:
  static constexpr size_t kStatuses = std::size(kBunkerStatusNames);
  static constexpr size_t kModes = std::size(kLifecycleModeNames);
  using Ids = absl::btree_set<Key>;
  // What one asker may see.
  using View = std::array<Ids, kStatuses * kModes>;

  static size_t SlotOf(BunkerStatus status, LifecycleMode mode) {
    return static_cast<size_t>(status) * kModes + static_cast<size_t>(mode);
  }
  static std::string ViewOf(const Caller& caller);
  static std::vector<std::string> ViewsOf(const Bunker& row);
  static std::string LabelViewOf(const Caller& caller);
  static std::string LabelKey(const std::string& view, const std::string& name,
                              const std::string& value);

  void Put(const Bunker& row, bool in);
  // The smallest set of a label that the filter asks for; null where it asks for none.
  const Ids* SmallestLabel(const Caller& caller, const BunkerFilter& filter) const;

  std::unordered_map<std::string, View> views_;
  std::unordered_map<std::string, Ids> labels_;
};

}  // namespace bunker::controller
