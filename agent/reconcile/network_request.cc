#include "agent/reconcile/network_request.h"

#include "absl/strings/numbers.h"
#include "agent/net/traffic.h"

namespace bunker::agent {

bool HasNetworkCard(const link::v1::BunkerAssignment& wanted) {
  return wanted.network_profile() != "isolated" && !wanted.network_profile().empty();
}

bool HasSeveralCards(const link::v1::BunkerAssignment& wanted) {
  return wanted.interfaces_size() > 1;
}

std::optional<NetworkRequest> NetworkOf(const v1::VmRow& row, uid_t uid) {
  const link::v1::BunkerAssignment& wanted = row.wanted();
  if (!HasNetworkCard(wanted)) return std::nullopt;
  NetworkRequest request;
  request.bunker_id = wanted.bunker_id();
  request.incarnation = wanted.incarnation();
  request.folder = row.folder();
  request.profile = wanted.network_profile();
  request.allowlist.assign(wanted.network_allowlist().begin(), wanted.network_allowlist().end());
  for (const link::v1::TransitInterface& card : wanted.interfaces())
    request.cards.push_back({card.bridge_name(), card.spoof_guard(), card.mac(), card.ipv4()});
  request.slot = uid;
  request.bandwidth_mbit = wanted.bandwidth_mbit();
  return request;
}

void PutCards(const link::v1::BunkerAssignment& wanted, const BunkerNetwork& network,
              VmSpec* spec) {
  spec->tap_fd = network.tap.get();
  if (!HasSeveralCards(wanted)) return;
  spec->nic_mac = wanted.interfaces(0).mac();
  for (size_t i = 0; i < network.more_taps.size(); ++i) {
    const int card = static_cast<int>(i) + 1;
    spec->more_cards.push_back({wanted.interfaces(card).mac(), network.more_taps[i].get()});
  }
}

void PutGuestCard(guest::v1::GuestConfig* config) {
  guest::v1::GuestNetwork* network = config->mutable_network();
  network->set_address(kGuestAddress);
  network->set_prefix_bits(kGuestPrefixBits);
  network->set_gateway(kGatewayAddress);
}

void PutGuestNetwork(const link::v1::BunkerAssignment& wanted, guest::v1::GuestConfig* config) {
  if (!HasNetworkCard(wanted)) return;
  for (const link::v1::TransitInterface& from : wanted.interfaces()) {
    guest::v1::GuestInterface* to = config->add_interfaces();
    to->set_name(from.if_name());
    to->set_mac(from.mac());
    to->set_gateway(from.gateway());
    const size_t slash = from.ipv4().find('/');
    uint32_t bits = 0;
    if (slash == std::string::npos || !absl::SimpleAtoi(from.ipv4().substr(slash + 1), &bits))
      continue;
    to->set_address(from.ipv4().substr(0, slash));
    to->set_prefix_bits(bits);
  }
  if (config->interfaces_size() > 0) return;
  PutGuestCard(config);
  config->mutable_network()->set_nameserver(kGatewayAddress);
}

void PutTraffic(const v1::VmRow& row, link::v1::Usage* usage) {
  if (!HasNetworkCard(row.wanted())) return;
  // One that was taken down meanwhile has nothing more to tell.
  const Traffic traffic = ReadTraffic(NamespaceOf(row.folder())).value_or(Traffic());
  usage->set_net_rx_bytes(traffic.received_bytes);
  usage->set_net_tx_bytes(traffic.sent_bytes);
}

}  // namespace bunker::agent
