// A shell that is run to warm a guest up. Free functions, thread-safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/exec/guest_channel.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// Runs `script` as uid 0 and drops what it says. OK also where the image has no shell or the script
// fails; not where the guest does not answer in time.
absl::Status RunWarmUpShell(GuestChannel& channel, const std::string& script,
                            absl::Duration timeout, CancelToken& cancel);

// Randomness and time of now, and nothing that says who the guest is: its machine id is zeros, in
// the place that its own is written to.
guest::v1::GuestConfig FreshConfig();

}  // namespace bunker::agent
