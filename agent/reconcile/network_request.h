// What a bunker's row asks of its network: of the host, of the VM and of the guest.
//
// Thread-safe: free functions.
#pragma once

#include <sys/types.h>

#include <optional>

#include "agent/net/bunker_network.h"
#include "agent/vm/vmm.h"
#include "bunker/agent/v1/journal.pb.h"
#include "bunker/guest/v1/guest.pb.h"
#include "bunker/link/v1/agent_link.pb.h"

namespace bunker::agent {

// Of every profile but isolated.
bool HasNetworkCard(const link::v1::BunkerAssignment& wanted);
// Each then has the MAC that the bunker says, from its making on.
bool HasSeveralCards(const link::v1::BunkerAssignment& wanted);

// The network of that row's bunker; nothing where its profile has none.
std::optional<NetworkRequest> NetworkOf(const v1::VmRow& row, uid_t uid);

// Puts the VM's cards onto that network's taps. `network` must outlive the start.
void PutCards(const link::v1::BunkerAssignment& wanted, const BunkerNetwork& network, VmSpec* spec);

// The part that is the same for every card that is not of a segment, and so of a template's, too.
void PutGuestCard(guest::v1::GuestConfig* config);

// What the guest is to make of its cards.
void PutGuestNetwork(const link::v1::BunkerAssignment& wanted, guest::v1::GuestConfig* config);

// What went through them; 0 where there are none.
void PutTraffic(const v1::VmRow& row, link::v1::Usage* usage);

}  // namespace bunker::agent
