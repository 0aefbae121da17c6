// Processes between the link's messages and the guest's. What a guest says is made fit to pass on.
//
// Thread-safe: free functions without state.
#pragma once

#include "absl/time/time.h"
#include "bunker/guest/v1/guest.pb.h"
#include "bunker/link/v1/agent_link.pb.h"

namespace bunker::agent {

// REQUIRES: it is no write.
guest::v1::ProcessCall ToGuest(const link::v1::ProcessCall& call);

// `now`: a process's age is told as the time of its start.
link::v1::ProcessAnswer ToLink(const guest::v1::ProcessAnswer& answer, absl::Time now);

}  // namespace bunker::agent
