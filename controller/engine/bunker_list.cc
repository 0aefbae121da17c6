// The list of bunkers, a page at a time.
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

}  // namespace bunker::controller
