// Random fleets and requests: what is placed fits, nothing is overcommitted however much is asked
// for, and Explain() agrees with Place().
#include "controller/policy/placement.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

TEST(PlacementProperty, NeverOvercommitsAndExplainAgrees) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SeededRng rng(seed);
    std::vector<PlacementCandidate> fleet(1 + rng.Below(8));
    for (PlacementCandidate& worker : fleet) {
      worker.status = rng.Below(8) == 0 ? WorkerStatus::kOffline : WorkerStatus::kOnline;
      worker.arch = rng.Below(4) == 0 ? Arch::kAarch64 : Arch::kX86_64;
      worker.paired = rng.Below(5) != 0;
      worker.image_ready = rng.Below(4) != 0;
      worker.room = {rng.Below(8000), rng.Below(8192), rng.Below(50'000)};
    }
    for (int i = 0; i < 60; ++i) {
      PlacementRequest request;
      request.arch = rng.Below(2) == 0 ? Arch::kX86_64 : Arch::kUnspecified;
      request.lazy_pull = rng.Below(4) == 0;
      request.wanted = {50 + rng.Below(2000), 160 + rng.Below(2000), 64 + rng.Below(8000)};
      const PlacementExplanation explained = Explain(request, fleet);
      const std::optional<size_t> chosen = Place(request, fleet, rng);
      ASSERT_EQ(chosen.has_value(), explained.eligible > 0) << "seed " << seed;
      ASSERT_EQ(explained.error_code.empty(), chosen.has_value());
      uint64_t refused = 0;
      for (const auto& [predicate, count] : explained.counts) refused += count;
      ASSERT_EQ(refused + explained.eligible, fleet.size());
      if (!chosen) continue;
      PlacementCandidate& worker = fleet[*chosen];
      ASSERT_EQ(worker.status, WorkerStatus::kOnline);
      ASSERT_TRUE(worker.image_ready || request.lazy_pull);
      worker.allocated += request.wanted;
      ASSERT_LE(worker.allocated.cpu_millicores, worker.room.cpu_millicores);
      ASSERT_LE(worker.allocated.memory_mb, worker.room.memory_mb);
      ASSERT_LE(worker.allocated.disk_mb, worker.room.disk_mb);
    }
  }
}

}  // namespace
}  // namespace bunker::controller
