#include "controller/init.h"

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/engine/bootstrap.h"
#include "controller/model/api_key.h"

namespace bunker::controller {

absl::StatusOr<bool> IsInitialised(Store& store) {
  bool found = false;
  RETURN_IF_ERROR(store.Load(Noun::kTenant, [&found](std::string_view, std::string_view) {
    found = true;
    return absl::OkStatus();
  }));
  return found;
}

absl::StatusOr<InitResult> InitStore(Store& store, absl::Time now) {
  SystemRng rng;
  InitResult result;
  result.key = NewApiKeySecret();
  BootstrapSpec spec;
  spec.key_sha256 = Sha256Hex(result.key);
  ASSIGN_OR_RETURN(result.rows, Bootstrap(store, spec, now, rng));
  return result;
}

}  // namespace bunker::controller
