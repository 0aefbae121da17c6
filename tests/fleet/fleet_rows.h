// A large fleet's rows, written straight into the store of a controller that does not run: what
// thousands of joins, bakes and creates would have left there.
//
// Thread-safe: free functions. Blocking: they commit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/bootstrap.h"
#include "controller/model/worker.h"
#include "controller/store/store.h"

namespace bunker::controller {

struct FleetRows {
  size_t workers = 0;
  // Spread over the workers in turn, one core each; to be booted by their agents (or running
  // already, for an engine without agents).
  size_t bunkers = 0;
  bool bunkers_run = false;
  size_t finished = 0;                             // ended within the last day
  Resources capacity = {16'000, 32'768, 500'000};  // of each worker
};

struct FleetAccess {
  std::string image_name = "seeded";
  std::vector<std::string> worker_names;
  std::vector<std::string> worker_ids;
  std::vector<std::string> credentials;  // by worker
  std::vector<std::string> bunker_ids;
};

// For that tenant and user. The workers are the platform's, shared and online; the
// image is ready on each, and one group holds them all. `now`: the ids' moment.
absl::StatusOr<FleetAccess> SeedFleet(Store& store, const BootstrapResult& owner,
                                      const FleetRows& rows, absl::Time now);

// The first tenant's first user. kNotFound before init. Before the store's first commit.
absl::StatusOr<BootstrapResult> FirstOwner(Store& store);

}  // namespace bunker::controller
