// What a guest is told of the bunker that it is: name, machine id, defaults of commands, time,
// randomness, network. Thread-safe: free functions without state.
#pragma once

#include "bunker/guest/v1/guest.pb.h"
#include "bunker/link/v1/agent_link.pb.h"

namespace bunker::agent {

// All but main, with the time of now and fresh randomness.
guest::v1::GuestConfig ConfigFor(const link::v1::BunkerAssignment& wanted);

// The defaults of commands, as above, and the main program. REQUIRES: it has one.
guest::v1::GuestConfig MainConfigFor(const link::v1::BunkerAssignment& wanted);

}  // namespace bunker::agent
