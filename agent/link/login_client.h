// Asks the controller for the registry login of an image that this worker is assigned.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/link/channel.h"
#include "agent/link/identity.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// Blocking; thread-safe. kUnavailable where the controller is not reached within `timeout`,
// kCancelled, or the controller's refusal. What comes is not kept here.
absl::StatusOr<link::v1::RegistryLogin> FetchRegistryLogin(const LinkEndpoint& endpoint,
                                                           const Identity& identity,
                                                           const std::string& image_id,
                                                           absl::Duration timeout,
                                                           CancelToken& cancel);

}  // namespace bunker::agent
