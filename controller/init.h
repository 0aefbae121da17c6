// `bunker-controller init`: the first rows, before the first start.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/bootstrap.h"
#include "controller/store/store.h"

namespace bunker::controller {

struct InitResult {
  BootstrapResult rows;
  std::string key;  // the secret: to be shown once, stored nowhere
};

// Makes a partner, a tenant, its user `admin` (super_admin) and a key of that user, in one commit.
// kFailedPrecondition where the store has rows already. Blocking.
absl::StatusOr<InitResult> InitStore(Store& store, absl::Time now);

// Whether init has been run. Blocking; before the first commit.
absl::StatusOr<bool> IsInitialised(Store& store);

}  // namespace bunker::controller
