// What a client asks for in a bunker, checked: one reading for the create and for explain.
//
// Thread-safe: free functions without state.
#pragma once

#include "absl/status/statusor.h"
#include "bunker/v1/bunker.pb.h"
#include "controller/api/dispatcher.h"
#include "controller/engine/specs.h"

namespace bunker::controller {

// VALIDATION_ERROR naming the fields, or NETWORK_PROFILE_DENIED for a profile that the caller may
// not use.
absl::StatusOr<CreateBunkerSpec> BunkerSpecOf(const CallContext& context,
                                              const v1::BunkerSpec& spec);

}  // namespace bunker::controller
