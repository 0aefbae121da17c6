// The first rows of an empty store: a partner, a tenant, and its user `admin` with a key.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/rng.h"
#include "controller/store/store.h"

namespace bunker::controller {

struct BootstrapSpec {
  std::string partner_name = "default";
  std::string tenant_name = "default";
  std::string key_sha256;  // of the admin's key, made by the system's generator
};

struct BootstrapResult {
  std::string partner_id;
  std::string tenant_id;
  std::string user_id;
  std::string key_id;
};

// kFailedPrecondition (RESOURCE_IN_USE) where the store has been initialised. Blocking; before
// Engine::Load.
absl::StatusOr<BootstrapResult> Bootstrap(Store& store, const BootstrapSpec& spec, absl::Time now,
                                          Rng& rng);

}  // namespace bunker::controller
