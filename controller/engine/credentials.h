// Registry credentials: who may store, see and use them, which images name them, and which worker
// may be given one. Secrets pass through here sealed; opening them is the link's business.
//
// As Engine: on the core's loop only, changes through the Turn, answers after the commit.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/engine/engine.h"
#include "controller/model/registry_credential.h"

namespace bunker::controller {

struct CredentialSpec {
  std::string id;  // of NewId(), or of the row that is replaced
  std::string name;
  Scope scope = Scope::kTenant;
  std::string host;  // normalised
  std::string username;
  std::string sealed;  // bound to SealedTo(id, host, username)
};

class Credentials {
 public:
  Credentials(Engine& engine, Engine::State& state) : engine_(engine), state_(state) {}

  // An id for a row to come, so that its secret can be sealed to it.
  std::string NewId(Turn& turn);

  // SLUG_CONFLICT for a taken name; AUTHZ_PERMISSION_DENIED for a scope above the caller's role.
  absl::StatusOr<RowPtr<RegistryCredential>> Create(Turn& turn, const Caller& caller,
                                                    const CredentialSpec& spec);
  // By name: the caller's tenant's, then its partner's, then the platform's.
  absl::StatusOr<RowPtr<RegistryCredential>> Find(const Caller& caller,
                                                  const std::string& name) const;
  Page<RegistryCredential> List(const Caller& caller, const PageSpec& page) const;
  bool MayChange(const Caller& caller, const RegistryCredential& credential) const;

  // Another secret, user name or host for the row `spec.id`; its name and scope stay. What failed
  // for the lack of a right login is tried again at once. VALIDATION_ERROR for a host that is not
  // that of the images which name it.
  absl::StatusOr<RowPtr<RegistryCredential>> Replace(Turn& turn, const Caller& caller,
                                                     const CredentialSpec& spec);
  // RESOURCE_IN_USE while active images name it.
  absl::Status Delete(Turn& turn, const Caller& caller, const std::string& name);

  // For an image of `owner` at registry `host`: the nearest one of that name that its owner may
  // use. VALIDATION_ERROR (field pull_secret) where there is none, or it is for another host.
  absl::StatusOr<RowPtr<RegistryCredential>> ForImage(const Ownership& owner,
                                                      const std::string& name,
                                                      const std::string& host) const;

  // What the worker needs to pull an image that it is assigned now. NOT_FOUND for any other image;
  // AUTHZ_PERMISSION_DENIED where the worker is in the hands of others than the credential: a
  // tenant's own worker is given its tenant's secrets alone.
  absl::StatusOr<RowPtr<RegistryCredential>> ForWorker(const std::string& worker_id,
                                                       const std::string& image_id) const;

  // For sealing with another key: every row, and the same secret sealed otherwise.
  std::vector<RowPtr<RegistryCredential>> All() const;
  void SealAnew(Turn& turn, const std::string& id, std::string sealed);

  // Gives the image's rows that a login could mend a new attempt now.
  void RetryPulls(Turn& turn, const std::string& image_id);

 private:
  Engine& engine_;
  Engine::State& state_;
};

}  // namespace bunker::controller
