// How an agent comes to its identity: a single-use token, made by the operator for this worker's
// name, is traded for the worker's own credential.
//
// Thread-safe: free functions without state. Blocking: network and file I/O.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/link/channel.h"
#include "agent/link/identity.h"

namespace bunker::agent {

// Trades `token` for an identity. A token that was used, has run out, is unknown or was made for
// another name is refused by the controller with a message that says so.
absl::StatusOr<Identity> Join(const LinkEndpoint& endpoint, const std::string& token,
                              const std::string& worker_name, absl::Duration timeout);

// Joins and saves the identity under `state_dir`: the command `bunker-agent join`. Refuses where
// an identity is there already, unless `replace`.
absl::StatusOr<Identity> JoinAndSave(const LinkEndpoint& endpoint, const std::string& token,
                                     const std::string& worker_name, const std::string& state_dir,
                                     bool replace);

// The identity under `state_dir`; where there is none yet, joins with the token in `token_file`
// (which is removed once the identity is durable) or in the environment's BUNKER_JOIN_TOKEN.
// Without a token the error says how to get one. A controller that can't be reached is
// kUnavailable: try again.
absl::StatusOr<Identity> LoadOrJoin(const LinkEndpoint& endpoint, const std::string& worker_name,
                                    const std::string& state_dir, const std::string& token_file);

}  // namespace bunker::agent
