// The list of bunkers, a page at a time.
#include <algorithm>
#include <utility>

#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

// Of one page. A filter that the index knows nothing of may refuse all of them: the page is short
// then, and says where to go on.
constexpr size_t kMaxLooks = 5000;

bool Matches(const Bunker& row, const BunkerFilter& filter) {
  if (!filter.statuses.empty() && filter.statuses.count(row.status) == 0) return false;
  if (filter.lifecycle && row.lifecycle_mode != *filter.lifecycle) return false;
  for (const auto& [label, value] : filter.labels) {
    const auto it = row.label_set.find(label);
    if (it == row.label_set.end() || it->second != value) return false;
  }
  return true;
}

}  // namespace

Page<Bunker> Engine::ListBunkers(const Caller& caller, const BunkerFilter& filter,
                                 const PageSpec& page) const {
  const State& s = *state_;
  Page<Bunker> result;
  size_t looks = 0;
  s.bunker_index.Walk(caller, filter, page.after_id, [&](const std::string& id) {
    const RowPtr<Bunker> row = s.bunkers.Find(id);
    const bool wanted = MaySeeBunker(caller, *row) && Matches(*row, filter);
    if (++looks > kMaxLooks || (wanted && result.rows.size() == page.limit)) {
      result.has_more = true;
      return false;
    }
    if (wanted) result.rows.push_back(row);
    result.last_id = id;
    return true;
  });
  return result;
}

BunkerDelta Engine::BunkersSince(const Caller& caller, const std::string& bunker_id,
                                 std::optional<uint64_t> after, bool live) const {
  const State& s = *state_;
  BunkerDelta delta;
  delta.upto = s.versions->last();
  const RowPtr<MetaRow> floor = s.meta.Find(kBunkerFloor);
  const bool forgotten = floor != nullptr && after && *after < floor->value && !live;
  delta.complete = !after || *after > delta.upto || forgotten;
  const auto show = [&](const std::string& id) {
    RowPtr<Bunker> row = s.bunkers.Find(id);
    if (row == nullptr || !MaySeeBunker(caller, *row)) return;
    if (delta.complete || row->change_id > *after) delta.rows.push_back(std::move(row));
  };
  if (!bunker_id.empty()) {
    show(bunker_id);
  } else if (!delta.complete) {
    for (auto it = s.bunker_changes.upper_bound(*after); it != s.bunker_changes.end(); ++it) {
      show(BunkerIndex::IdOf(it->second));
    }
  } else if (caller.super_admin() || caller.role == Role::kPartnerAdmin) {
    for (const auto& [name, id] : s.bunker_by_name) show(id);
  } else {
    for (const std::string& id : s.live_of_tenant.Of(caller.tenant_id)) show(id);
  }
  std::sort(delta.rows.begin(), delta.rows.end(),
            [](const RowPtr<Bunker>& a, const RowPtr<Bunker>& b) {
              return a->change_id < b->change_id;
            });
  return delta;
}

}  // namespace bunker::controller
