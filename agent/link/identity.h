// Who this agent is to its controller: what it got for its join token, kept in a file of mode
// 0600. The controller stores only the SHA-256 of the credential.
//
// Thread-safe: free functions without state. Blocking: file I/O.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bunker::agent {

struct Identity {
  std::string worker_id;   // wrk_…
  std::string name;        // the worker's name, as joined
  std::string credential;  // secret: never logged
  std::string controller;  // host:port that it joined at, for people
};

// Where the identity lives under the state folder.
std::string IdentityPath(const std::string& state_dir);

// kNotFound where this agent has not joined yet. A file that others may read, or that does not
// hold an identity, is an error that names the remedy.
absl::StatusOr<Identity> LoadIdentity(const std::string& path);

// Durable when it returns OK.
absl::Status SaveIdentity(const std::string& path, const Identity& identity);

}  // namespace bunker::agent
