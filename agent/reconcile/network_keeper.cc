#include "agent/reconcile/network_keeper.h"

#include <memory>
#include <utility>

#include "common/base/log.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kPeriod = absl::Seconds(5);

struct Seen {
  std::string bunker_id;
  uint32_t incarnation = 0;
  std::vector<link::v1::NetworkEvent> events;
};

link::v1::NetworkEvent EventOf(const v1::GuardEvent& from) {
  link::v1::NetworkEvent event;
  event.set_at_unix_ms(from.at_unix_ms());
  event.set_allowed(from.allowed());
  event.set_rule(from.rule());
  event.set_proto(from.proto());
  event.set_dst(from.dst());
  event.set_port(from.port());
  event.set_name(from.name());
  event.set_count(from.count());
  return event;
}

// Those that could not be looked after are logged, and looked at again the next time.
std::vector<Seen> KeepAll(BunkerNetworks& networks, const CancelToken& cancel) {
  std::vector<Seen> all;
  for (const NetworkRequest& request : networks.Kept()) {
    if (!cancel.Check().ok()) break;
    const absl::StatusOr<v1::GuardReport> report = networks.Keep(request.folder);
    if (absl::IsNotFound(report.status())) continue;
    if (!report.ok()) {
      Log(Severity::kError, "net.not_kept",
          {{"bunker", request.bunker_id}, {"error", std::string(report.status().message())}});
      continue;
    }
    Seen seen{request.bunker_id, request.incarnation, {}};
    for (const v1::GuardEvent& event : report->events()) seen.events.push_back(EventOf(event));
    all.push_back(std::move(seen));
  }
  return all;
}

}  // namespace

void NetworkKeeper::Look() {
  auto job = [this](CancelToken& cancel) {
    loop_.Post([this, all = KeepAll(networks_, cancel)] {
      for (const Seen& seen : all) on_events_(seen.bunker_id, seen.incarnation, seen.events);
      loop_.AddTimer(kPeriod, [this] { Look(); });
    });
  };
  if (!pool_.Submit(std::move(job)).ok()) loop_.AddTimer(kPeriod, [this] { Look(); });
}

}  // namespace bunker::agent
