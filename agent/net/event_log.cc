#include "agent/net/event_log.h"

#include <utility>

namespace bunker::agent {
namespace {

constexpr size_t kMaxNameBytes = 255;

}  // namespace

void EventLog::Note(What what, absl::Time at, uint64_t count) {
  what.name.resize(std::min(what.name.size(), kMaxNameBytes));
  const auto [it, added] = events_.try_emplace(std::move(what));
  if (!added) by_order_.erase(it->second.order);
  it->second.at = at;
  it->second.count += count;
  it->second.order = next_order_++;
  by_order_.emplace(it->second.order, &it->first);
  if (events_.size() <= kMaxEvents) return;
  const auto oldest = by_order_.begin();
  events_.erase(events_.find(*oldest->second));
  by_order_.erase(oldest);
}

v1::GuardReport EventLog::Report(size_t max) const {
  v1::GuardReport report;
  for (auto it = by_order_.rbegin(); it != by_order_.rend() && max > 0; ++it, --max) {
    const What& what = *it->second;
    const Times& times = events_.find(what)->second;
    v1::GuardEvent* event = report.add_events();
    event->set_at_unix_ms(absl::ToUnixMillis(times.at));
    event->set_allowed(what.allowed);
    event->set_rule(what.rule);
    event->set_proto(what.proto);
    event->set_dst(what.dst);
    event->set_port(what.port);
    event->set_name(what.name);
    event->set_count(times.count);
  }
  return report;
}

}  // namespace bunker::agent
