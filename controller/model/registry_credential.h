// A login at a registry, which images name as their pull_secret. The secret is here sealed only.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "controller/model/scope.h"

namespace bunker::controller {

struct RegistryCredential {
  std::string id;    // rcr_…; clients know it by its name
  std::string name;  // unique per owner
  Ownership ownership;
  std::string owner;  // the user who stored it
  std::string host;   // as references have it, normalised: "docker.io", "127.0.0.1:5000"
  std::string username;
  std::string sealed;  // the password; see SealedTo()
  absl::Time created_at;
  absl::Time updated_at;
};

// What a secret is bound to: a row that was given another host or user name can't be opened.
inline std::string SealedTo(const std::string& id, const std::string& host,
                            const std::string& username) {
  return id + "\n" + host + "\n" + username;
}

}  // namespace bunker::controller
