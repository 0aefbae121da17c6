#include "agent/net/bunker_network.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/net/guard_process.h"
#include "agent/net/links.h"
#include "agent/net/name_set.h"
#include "agent/net/namespace.h"
#include "agent/net/rule_events.h"
#include "agent/net/transit_network.h"
#include "agent/net/worker_registries.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/process.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxResolvConf = 64 * 1024;
constexpr size_t kMaxResolvers = 4;
constexpr int kMaxReportedEvents = 64;
constexpr size_t kMaxMarkBytes = 256;
constexpr char kForwardingMark[] = "/forwarding-was-off";
constexpr char kForwardingPath[] = "/proc/sys/net/ipv4/ip_forward";

// The worker's own, IPv4 alone.
std::vector<std::string> Resolvers() {
  std::vector<std::string> found;
  std::istringstream lines(ReadFile("/etc/resolv.conf", kMaxResolvConf).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, address;
    if (words >> key >> address && key == "nameserver" && ParseIpv4(address).ok() &&
        found.size() < kMaxResolvers)
      found.push_back(address);
  }
  return found;
}

// Every address by which this host can be spoken to.
std::vector<std::string> OwnAddresses() {
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return found;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
    found.push_back(Ipv4Text(ntohl(address->sin_addr.s_addr)));
  }
  freeifaddrs(list);
  return found;
}

// Shaped both ways; what comes from the guest by way of an intermediate device, since a link can
// only be shaped where it sends.
std::string ShapingBatch(uint32_t mbit) {
  const std::string bucket = absl::StrCat(" root ", TokenBucket(mbit), "\n");
  return absl::StrCat("qdisc add dev ", kTapName, bucket, "qdisc add dev ", kTapName,
                      " handle ffff: ingress\nfilter add dev ", kTapName,
                      " parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect "
                      "dev ifb0\nqdisc add dev ifb0",
                      bucket);
}

bool Forwards(const NetworkRequest& request) {
  return request.profile == "unrestricted";
}

bool IsTransit(const NetworkRequest& request) {
  return request.profile == "transit";
}

std::string UplinkName(uint32_t slot) {
  return absl::StrCat(kUplinkPrefix, slot);
}

}  // namespace

absl::StatusOr<UniqueFd> MakeIdleTap() {
  absl::StatusOr<UniqueFd> tap = absl::UnknownError("not tried");
  // A thread of its own, for a thread can't be sure to get back into the namespace it left.
  std::thread([&tap] {
    if (unshare(CLONE_NEWNET) != 0) {
      tap = ErrnoError(errno, "a namespace for an idle tap");
      return;
    }
    tap = MakeTap(kTapName);
  }).join();
  return tap;
}

std::string NamespaceOf(const std::string& folder) {
  return absl::StrCat("bunker-", fs::path(folder).filename().string());
}

absl::StatusOr<std::unique_ptr<BunkerNetworks>> BunkerNetworks::Create(NetworkOptions options) {
  Parsed parsed;
  for (const std::string& text : options.refused) {
    ASSIGN_OR_RETURN(const Ipv4Range range, ParseRange(text));
    parsed.refused.push_back(range);
  }
  for (const std::string& text : options.exempt) {
    if (const auto range = ParseRange(text); range.ok())
      parsed.exempt_ranges.push_back(*range);
    else if (!NameSet({text}).empty())
      parsed.exempt_names.push_back(text);
    else
      return absl::InvalidArgumentError("config option network.egress_allow: '" + text +
                                        "' is neither an IPv4 range nor a host name");
  }
  ASSIGN_OR_RETURN(parsed.uplinks, ParseRange(options.uplinks));
  if ((uint64_t{1} << (32 - parsed.uplinks.bits)) < uint64_t{options.slots} * 2) {
    return absl::InvalidArgumentError("config option network.uplinks: " + options.uplinks +
                                      " has less than two addresses for each of vm.uid_count");
  }
  return std::unique_ptr<BunkerNetworks>(new BunkerNetworks(std::move(options), std::move(parsed)));
}

const std::vector<std::string>& BunkerNetworks::RegistryNames() {
  std::call_once(registries_known_, [this] {
    registries_ = options_.registry_names.empty() ? WorkerRegistries() : options_.registry_names;
    Log(Severity::kInfo, "net.package_registries", {{"names", absl::StrJoin(registries_, " ")}});
  });
  return registries_;
}

NetworkAbilities BunkerNetworks::Probe() {
  NetworkAbilities abilities{{"isolated"}, "", {}};
  const std::string name = absl::StrCat("bunker-probe-", getpid());
  BunkerNetwork network;
  NetworkRequest request;
  request.profile = "registry";
  std::string rules;
  absl::Status built = MakeNamespace(name);
  if (built.ok()) built = Build(name, request, &network, &rules);
  const absl::Status removed = RemoveNamespace(name);
  if (built.ok()) built = removed;
  if (!built.ok()) {
    abilities.reason =
        absl::StrCat("a bunker's network can't be enforced here: ", std::string(built.message()));
    return abilities;
  }
  abilities.profiles = {"isolated", "registry", "allowlisted", "unrestricted"};
  if (options_.bridges.empty()) return abilities;
  built = MakeNamespace(name);
  if (built.ok()) built = ProbeTransit(name);
  built.Update(RemoveNamespace(name));
  if (built.ok()) {
    abilities.profiles.push_back("transit");
    abilities.bridges = Bridges();
  } else {
    abilities.reason = absl::StrCat("bunkers can't attach to bridges here: ", built.message());
  }
  return abilities;
}

// Those of the config that the host has now.
std::vector<std::string> BunkerNetworks::Bridges() const {
  std::vector<std::string> found;
  for (const std::string& name : options_.bridges) {
    if (IsBridge(name))
      found.push_back(name);
    else
      Log(Severity::kWarning, "net.bridge_missing",
          {{"bridge", name}, {"remedy", "make it, and start the agent again"}});
  }
  return found;
}

// The controller's word alone opens no bridge.
absl::StatusOr<BunkerNetwork> BunkerNetworks::BuildCards(const std::string& name,
                                                         const NetworkRequest& request,
                                                         std::string* rules) {
  TransitPlan plan{name, request.slot, request.bandwidth_mbit, request.cards, {}};
  ASSIGN_OR_RETURN(plan.rules, ParseCards(request.cards));
  if (plan.cards.empty()) return absl::InvalidArgumentError("profile transit without interfaces");
  for (const TransitCard& card : plan.cards) {
    const auto& open = options_.bridges;
    if (std::find(open.begin(), open.end(), card.bridge) == open.end() || !IsBridge(card.bridge)) {
      return absl::FailedPreconditionError(
          absl::StrCat("this worker has no bridge ", card.bridge,
                       " that bunkers may attach to (network.bridges)"));
    }
  }
  ASSIGN_OR_RETURN(std::vector<UniqueFd> taps, BuildTransit(plan, [&]() -> absl::Status {
                     ASSIGN_OR_RETURN(*rules, ApplyRules(name, request, /*is_first=*/true));
                     return absl::OkStatus();
                   }));
  BunkerNetwork network;
  network.tap = std::move(taps.front());
  network.more_taps.assign(std::make_move_iterator(taps.begin() + 1),
                           std::make_move_iterator(taps.end()));
  for (const CardRules& card : plan.rules) {
    if (card.address && network.private_ip.empty()) network.private_ip = Ipv4Text(*card.address);
  }
  return network;
}

std::shared_ptr<BunkerNetworks::Entry> BunkerNetworks::EntryOf(const std::string& folder) {
  MutexLock lock(mutex_);
  std::shared_ptr<Entry>& entry = entries_[folder];
  if (!entry) entry = std::make_shared<Entry>();
  return entry;
}

absl::StatusOr<BunkerNetwork> BunkerNetworks::SetUp(const NetworkRequest& request) {
  const std::string name = NamespaceOf(request.folder);
  RETURN_IF_ERROR(TearDown(request.folder));
  const std::shared_ptr<Entry> entry = EntryOf(request.folder);
  absl::Status built;
  BunkerNetwork network;
  {
    MutexLock busy(entry->busy);
    built = MakeNamespace(name);
    if (built.ok()) built = Build(name, request, &network, &entry->rules);
    if (built.ok() && !IsTransit(request)) {
      auto config = GuardConfigFor(request);
      built = config.ok() ? StartGuard(request.folder, name, *config) : config.status();
    }
    entry->request = request;
    entry->kept = built.ok();
  }
  if (built.ok()) return network;
  network.tap.reset();
  if (const absl::Status undone = TearDown(request.folder); !undone.ok())
    Log(Severity::kWarning, "net.not_undone",
        {{"namespace", name}, {"error", std::string(undone.message())}});
  return Annotate(built, "the bunker's network");
}

void BunkerNetworks::Adopt(const NetworkRequest& request) {
  const std::shared_ptr<Entry> entry = EntryOf(request.folder);
  MutexLock busy(entry->busy);
  entry->request = request;
  entry->kept = true;
}

std::vector<NetworkRequest> BunkerNetworks::Kept() const {
  std::vector<std::shared_ptr<Entry>> entries;
  {
    MutexLock lock(mutex_);
    for (const auto& [folder, entry] : entries_) entries.push_back(entry);
  }
  std::vector<NetworkRequest> kept;
  for (const std::shared_ptr<Entry>& entry : entries) {
    MutexLock busy(entry->busy);
    if (entry->kept) kept.push_back(entry->request);
  }
  return kept;
}

// Rules before addresses, and the links come up last.
absl::Status BunkerNetworks::Build(const std::string& name, const NetworkRequest& request,
                                   BunkerNetwork* out, std::string* rules) {
  if (IsTransit(request)) {
    ASSIGN_OR_RETURN(*out, BuildCards(name, request, rules));
    return absl::OkStatus();
  }
  if (Forwards(request)) RETURN_IF_ERROR(ConnectUplink(name, request.slot));
  const Ipv4 uplink = UplinkAddress(request.slot);
  const auto prepare = [&]() -> absl::Status {
    RETURN_IF_ERROR(SilenceIpv6());
    ASSIGN_OR_RETURN(out->tap, MakeTap(kTapName));
    return absl::OkStatus();
  };
  const auto bring_up = [&]() -> absl::Status {
    if (Forwards(request)) RETURN_IF_ERROR(WriteSetting(kForwardingPath, "1"));
    std::string batch = absl::StrCat("link set dev ", kTapName, " address ", kGatewayMac,
                                     "\naddress add ", kGatewayAddress, "/", kGuestPrefixBits,
                                     " dev ", kTapName, "\nlink set lo up\n");
    // Each tool that is run costs a start some milliseconds: one where nothing has to come between.
    if (request.bandwidth_mbit > 0) {
      absl::StrAppend(&batch, "link add ifb0 type ifb\nlink set ifb0 up\n");
      RETURN_IF_ERROR(RunNetTool({kIpPath, "-batch", "-"}, std::exchange(batch, "")));
      RETURN_IF_ERROR(RunNetTool({kTcPath, "-batch", "-"}, ShapingBatch(request.bandwidth_mbit)));
    }
    std::string up = absl::StrCat(batch, "link set dev ", kTapName, " up\n");
    if (Forwards(request)) {
      absl::StrAppend(&up, "address add ", Ipv4Text(uplink), "/31 dev ", kUplinkName,
                      "\nlink set dev ", kUplinkName, " up\nroute add default via ",
                      Ipv4Text(uplink - 1), "\n");
    }
    return RunNetTool({kIpPath, "-batch", "-"}, up);
  };
  RETURN_IF_ERROR(InNamespace(name, prepare));
  ASSIGN_OR_RETURN(*rules, ApplyRules(name, request, /*is_first=*/true));
  RETURN_IF_ERROR(InNamespace(name, bring_up));
  out->private_ip = Ipv4Text(uplink);
  return absl::OkStatus();
}

// Even: the host's end; odd: the bunker's.
Ipv4 BunkerNetworks::UplinkAddress(uint32_t slot) const {
  const uint64_t room = uint64_t{1} << (32 - parsed_.uplinks.bits);
  return parsed_.uplinks.first + static_cast<Ipv4>(uint64_t{slot} * 2 % room) + 1;
}

absl::Status BunkerNetworks::ConnectUplink(const std::string& name, uint32_t slot) {
  RETURN_IF_ERROR(OpenHost());
  const Ipv4 inside = UplinkAddress(slot);
  const std::string link = UplinkName(slot);
  return RunNetTool({kIpPath, "-batch", "-"},
                    absl::StrCat("link add ", link, " type veth peer name ", kUplinkName, " netns ",
                                 name, "\naddress add ", Ipv4Text(inside - 1), "/31 dev ", link,
                                 "\nlink set dev ", link, " up\n"));
}

// The host forwards for bunkers, and where it did not forward before, for nobody else. Who turned
// it on is in a file of ours, good for this boot, and in the table itself, which another agent on
// this host may have made.
absl::Status BunkerNetworks::OpenHost() {
  MutexLock lock(mutex_);
  if (host_open_) return absl::OkStatus();
  const std::string mark = options_.state_dir + kForwardingMark;
  ASSIGN_OR_RETURN(const std::string now, ReadFile(kForwardingPath, 16));
  const bool is_off = !now.empty() && now[0] == '0';
  const std::string table =
      ReadNetTool({kNftPath, "list", "table", "inet", "bunker_uplinks"}).value_or("");
  HostRulesetSpec spec{parsed_.uplinks};
  spec.forwarding_was_off = is_off || ReadFile(mark, kMaxMarkBytes).value_or("") == HostBootId() ||
                            table.find("iifname != ") != std::string::npos;
  if (is_off) RETURN_IF_ERROR(WriteFileDurably(mark, HostBootId(), 0600));
  RETURN_IF_ERROR(RunNetTool({kNftPath, "-f", "-"}, HostRuleset(spec)));
  if (is_off) RETURN_IF_ERROR(WriteSetting(kForwardingPath, "1"));
  host_open_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::string> BunkerNetworks::ApplyRules(const std::string& name,
                                                       const NetworkRequest& request,
                                                       bool is_first) {
  RulesetSpec spec;
  spec.is_first = is_first;
  spec.forwards = Forwards(request);
  spec.ports = options_.ports;
  spec.refused = parsed_.refused;
  spec.exempt = parsed_.exempt_ranges;
  std::string text;
  if (IsTransit(request)) {
    ASSIGN_OR_RETURN(const std::vector<CardRules> cards, ParseCards(request.cards));
    text = TransitRuleset(cards, is_first);
  } else {
    text = BunkerRuleset(spec);
  }
  RulesSeen seen;
  const auto apply = [&]() -> absl::Status {
    RETURN_IF_ERROR(RunNetTool({kNftPath, "-f", "-"}, text));
    ASSIGN_OR_RETURN(const std::string json, ReadNetTool({kNftPath, "-j", "list", "ruleset"}));
    ASSIGN_OR_RETURN(seen, ReadRules(json, absl::Now()));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(InNamespace(name, apply));
  return std::move(seen.text);
}

absl::StatusOr<v1::GuardConfig> BunkerNetworks::GuardConfigFor(const NetworkRequest& request) {
  v1::GuardConfig config;
  config.set_any_name(Forwards(request));
  const auto& names = request.profile == "registry" ? RegistryNames() : request.allowlist;
  if (!Forwards(request)) config.mutable_names()->Assign(names.begin(), names.end());
  config.mutable_exempt_names()->Assign(parsed_.exempt_names.begin(), parsed_.exempt_names.end());
  for (const Ipv4Range& range : parsed_.refused) config.add_refused_ranges(RangeText(range));
  for (const Ipv4Range& range : parsed_.exempt_ranges) config.add_exempt_ranges(RangeText(range));
  for (const std::string& own : OwnAddresses()) config.add_refused_ranges(own);
  for (const std::string& resolver : Resolvers()) config.add_resolvers(resolver);
  config.set_uid(options_.guard_uid);
  return config;
}

absl::Status BunkerNetworks::TearDown(const std::string& folder) {
  const std::shared_ptr<Entry> entry = EntryOf(folder);
  {
    MutexLock busy(entry->busy);
    entry->kept = false;
    RETURN_IF_ERROR(EndGuard(folder));
    // Its number may be another's at once, and what goes with a namespace goes some time later.
    if (Forwards(entry->request)) {
      RunNetTool({kIpPath, "link", "delete", UplinkName(entry->request.slot)}, "").IgnoreError();
    }
    RETURN_IF_ERROR(DisconnectTransit(NamespaceOf(folder)));
    RETURN_IF_ERROR(RemoveNamespace(NamespaceOf(folder)));
  }
  MutexLock lock(mutex_);
  entries_.erase(folder);
  return absl::OkStatus();
}

// The whole set in one transaction: there is no moment without rules.
absl::Status BunkerNetworks::RestoreRules(Entry& entry) {
  const std::string name = NamespaceOf(entry.request.folder);
  if (!entry.rules.empty()) Log(Severity::kWarning, "net.rules_restored", {{"namespace", name}});
  ASSIGN_OR_RETURN(entry.rules, ApplyRules(name, entry.request, /*is_first=*/false));
  if (!Forwards(entry.request)) return absl::OkStatus();
  {
    MutexLock lock(mutex_);
    host_open_ = false;
  }
  return OpenHost();
}

absl::StatusOr<v1::GuardReport> BunkerNetworks::Keep(const std::string& folder) {
  std::shared_ptr<Entry> entry;
  {
    MutexLock lock(mutex_);
    if (const auto it = entries_.find(folder); it != entries_.end()) entry = it->second;
  }
  if (!entry) return absl::NotFoundError("the bunker's network was taken down");
  MutexLock busy(entry->busy);
  if (!entry->kept) return absl::NotFoundError("the bunker's network was taken down");
  const std::string name = NamespaceOf(folder);
  RulesSeen seen;
  const auto look = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string json, ReadNetTool({kNftPath, "-j", "list", "ruleset"}));
    ASSIGN_OR_RETURN(seen, ReadRules(json, absl::Now()));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(InNamespace(name, look));
  if (entry->rules != seen.text) RETURN_IF_ERROR(RestoreRules(*entry));
  const bool guarded = !IsTransit(entry->request);
  if (guarded && !GuardRuns(folder)) {
    Log(Severity::kWarning, "net.guard_restarted", {{"namespace", name}});
    ASSIGN_OR_RETURN(const v1::GuardConfig config, GuardConfigFor(entry->request));
    RETURN_IF_ERROR(StartGuard(folder, name, config));
  }
  v1::GuardReport report;
  if (guarded) report = AskGuard(folder).value_or(v1::GuardReport());
  for (v1::GuardEvent& event : seen.events) *report.add_events() = std::move(event);
  std::stable_sort(report.mutable_events()->begin(), report.mutable_events()->end(),
                   [](const v1::GuardEvent& a, const v1::GuardEvent& b) {
                     return a.at_unix_ms() > b.at_unix_ms();
                   });
  if (report.events_size() > kMaxReportedEvents)
    report.mutable_events()->DeleteSubrange(kMaxReportedEvents,
                                            report.events_size() - kMaxReportedEvents);
  return report;
}

}  // namespace bunker::agent
