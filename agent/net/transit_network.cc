#include "agent/net/transit_network.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/net/links.h"
#include "agent/net/namespace.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr char kFromGuest[] = "ifb0";
constexpr char kToGuest[] = "ifb1";
constexpr uint32_t kMinMtu = 68;
constexpr uint32_t kMaxMtu = 65535;

absl::Status IpBatch(const std::string& lines) {
  return RunNetTool({kIpPath, "-batch", "-"}, lines);
}

// Of this thread's own network; /sys shows that of whoever mounted it.
bool AskDevice(const std::string& name, unsigned long question, ifreq* request) {
  name.copy(request->ifr_name, IFNAMSIZ - 1);
  const UniqueFd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return control && ioctl(control.get(), question, request) == 0;
}

// A port of another size would change the bridge's own.
absl::StatusOr<uint32_t> MtuOf(const std::string& bridge) {
  ifreq request{};
  if (!AskDevice(bridge, SIOCGIFMTU, &request)) return ErrnoError(errno, "the bridge " + bridge);
  const auto mtu = static_cast<uint32_t>(request.ifr_mtu);
  if (mtu >= kMinMtu && mtu <= kMaxMtu) return mtu;
  return absl::InternalError(absl::StrCat("the bridge ", bridge, " has an MTU of ", mtu));
}

// Both ways through a device of the namespace's own, since all cards share one limit and a link can
// only be shaped where it sends.
std::string ShapingBatch(size_t cards, uint32_t mbit) {
  std::string batch;
  for (size_t i = 0; i < cards; ++i) {
    for (const auto& [link, by] : {std::pair{TransitTapName(i), kFromGuest},
                                   std::pair{TransitPortName(i), kToGuest}}) {
      absl::StrAppend(&batch, "qdisc add dev ", link, " handle ffff: ingress\n");
      absl::StrAppend(&batch, "filter add dev ", link,
                      " parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect "
                      "dev ",
                      by, "\n");
    }
  }
  for (const char* link : {kFromGuest, kToGuest})
    absl::StrAppend(&batch, "qdisc add dev ", link, " root ", TokenBucket(mbit), "\n");
  return batch;
}

// The namespace's own part. Its bridges are wires: two ports, and nothing learned.
absl::Status JoinInside(const TransitPlan& plan) {
  std::string join, up;
  for (size_t i = 0; i < plan.cards.size(); ++i) {
    const std::string lan = TransitLanName(i);
    absl::StrAppend(&join, "link add ", lan,
                    " type bridge stp_state 0 mcast_snooping 0 forward_delay 0\n");
    for (const std::string& link : {TransitTapName(i), TransitPortName(i)}) {
      absl::StrAppend(&join, "link set ", link, " master ", lan, "\nlink set ", link,
                      " type bridge_slave learning off\n");
      absl::StrAppend(&up, "link set ", link, " up\n");
    }
    absl::StrAppend(&up, "link set ", lan, " up\n");
  }
  if (plan.bandwidth_mbit > 0) {
    for (const char* link : {kFromGuest, kToGuest})
      absl::StrAppend(&join, "link add ", link, " type ifb\nlink set ", link, " up\n");
  }
  RETURN_IF_ERROR(IpBatch(join));
  if (plan.bandwidth_mbit > 0) {
    RETURN_IF_ERROR(RunNetTool({kTcPath, "-batch", "-"},
                               ShapingBatch(plan.cards.size(), plan.bandwidth_mbit)));
  }
  return IpBatch(up);
}

// The host would otherwise give the port an address of its own.
absl::Status KeepSilent(const std::string& link) {
  const std::string path = absl::StrCat("/proc/sys/net/ipv6/conf/", link, "/disable_ipv6");
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return absl::OkStatus();  // a host without IPv6
  return WriteSetting(path, "1");
}

// Down as yet. A guarded port says nothing of who is behind it and is sent what is for it alone.
absl::Status PlugIn(const std::string& link, const TransitCard& card, const CardRules& rules) {
  RETURN_IF_ERROR(KeepSilent(link));
  RETURN_IF_ERROR(IpBatch(absl::StrCat("link set ", link, " master ", card.bridge, "\n")));
  if (!rules.guarded) return absl::OkStatus();
  RETURN_IF_ERROR(
      IpBatch(absl::StrCat("link set ", link, " type bridge_slave learning off flood off\n")));
  const absl::Status entered = RunNetTool(
      {kBridgePath, "-batch", "-"},
      absl::StrCat("fdb add ", rules.mac, " dev ", link, " master static sticky\n"));
  if (entered.ok()) return entered;
  return absl::FailedPreconditionError(
      absl::StrCat("the MAC ", rules.mac, " can't be had on the bridge ", card.bridge,
                   "; another bunker there has it, or the bridge itself: ", entered.message()));
}

}  // namespace

bool IsBridge(const std::string& name) {
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  ifreq request{};
  request.ifr_data = reinterpret_cast<char*>(&driver);
  return IsDeviceName(name) && AskDevice(name, SIOCETHTOOL, &request) &&
         std::string_view(driver.driver) == "bridge";
}

absl::StatusOr<std::vector<UniqueFd>> BuildTransit(
    const TransitPlan& plan, const std::function<absl::Status()>& apply_rules) {
  std::vector<UniqueFd> taps;
  const auto prepare = [&]() -> absl::Status {
    RETURN_IF_ERROR(SilenceIpv6());
    for (size_t i = 0; i < plan.cards.size(); ++i) {
      ASSIGN_OR_RETURN(UniqueFd tap, MakeTap(TransitTapName(i)));
      taps.push_back(std::move(tap));
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(InNamespace(plan.space, prepare));
  RETURN_IF_ERROR(apply_rules());
  std::string up;
  for (size_t i = 0; i < plan.cards.size(); ++i) {
    ASSIGN_OR_RETURN(const uint32_t mtu, MtuOf(plan.cards[i].bridge));
    const std::string link = TransitHostName(plan.slot, i);
    RETURN_IF_ERROR(IpBatch(absl::StrCat("link add ", link, " mtu ", mtu, " type veth peer name ",
                                         TransitPortName(i), " mtu ", mtu, " netns ", plan.space,
                                         "\n")));
    RETURN_IF_ERROR(PlugIn(link, plan.cards[i], plan.rules[i]));
    absl::StrAppend(&up, "link set ", link, " up\n");
  }
  RETURN_IF_ERROR(InNamespace(plan.space, [&plan] { return JoinInside(plan); }));
  RETURN_IF_ERROR(IpBatch(up));
  return taps;
}

absl::Status DisconnectTransit(const std::string& space) {
  if (!NamespaceExists(space)) return absl::OkStatus();
  return InNamespace(space, [] {
    std::string batch;
    struct if_nameindex* const links = if_nameindex();
    for (auto* link = links; link != nullptr && link->if_index != 0; ++link) {
      if (absl::StartsWith(link->if_name, kTransitPortPrefix))
        absl::StrAppend(&batch, "link delete ", link->if_name, "\n");
    }
    if (links != nullptr) if_freenameindex(links);
    return batch.empty() ? absl::OkStatus() : IpBatch(batch);
  });
}

absl::Status ProbeTransit(const std::string& space) {
  return InNamespace(space, []() -> absl::Status {
    ASSIGN_OR_RETURN(const UniqueFd tap, MakeTap(TransitTapName(0)));
    CardRules card;
    card.mac = "02:62:6b:00:00:02";
    card.address = Ipv4{0x0a000001};
    RETURN_IF_ERROR(RunNetTool({kNftPath, "-f", "-"}, TransitRuleset({card}, /*is_first=*/true)));
    return IpBatch("link add lan0 type bridge stp_state 0 mcast_snooping 0\n"
                   "link set tap0 master lan0\nlink set tap0 type bridge_slave learning off\n");
  });
}

}  // namespace bunker::agent
