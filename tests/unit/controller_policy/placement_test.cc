#include "controller/policy/placement.h"

#include <functional>

#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

const std::map<std::string, std::string> kFra = {{"metro", "fra"}};

PlacementCandidate Good(const std::string& name) {
  PlacementCandidate candidate;
  candidate.worker_id = "wrk_" + name;
  candidate.worker_name = name;
  candidate.status = WorkerStatus::kOnline;
  candidate.arch = Arch::kX86_64;
  candidate.labels = &kFra;
  candidate.room = {4000, 4096, 10'000};
  candidate.paired = true;
  candidate.image_ready = true;
  candidate.cache_status = CacheStatus::kReady;
  return candidate;
}

PlacementRequest Small() {
  PlacementRequest request;
  request.image_name = "a";
  request.arch = Arch::kX86_64;
  request.wanted = {1000, 512 + 96, 1024};
  return request;
}

struct Case {
  const char* name;
  std::function<void(PlacementRequest&, PlacementCandidate&)> edit;
  std::optional<Predicate> refused_by;
  const char* shortfall;
};

TEST(Placement, EachPredicateSaysWhatIsMissing) {
  const Case kCases[] = {
      {"fits", [](auto&, auto&) {}, std::nullopt, ""},
      {"exactly", [](auto& r, auto& c) { r.wanted = c.room; }, std::nullopt, ""},
      {"offline", [](auto&, auto& c) { c.status = WorkerStatus::kOffline; }, Predicate::kStatus,
       "the worker is offline"},
      {"draining", [](auto&, auto& c) { c.status = WorkerStatus::kDraining; }, Predicate::kStatus,
       "the worker is draining"},
      {"arch", [](auto&, auto& c) { c.arch = Arch::kAarch64; }, Predicate::kArch,
       "the image is for X86_64, the worker is AARCH64"},
      {"any arch", [](auto& r, auto& c) {
         r.arch = Arch::kUnspecified;
         c.arch = Arch::kAarch64;
       }, std::nullopt, ""},
      {"no group", [](auto&, auto& c) { c.paired = false; }, Predicate::kGroup,
       "no availability group holds both the image and the worker"},
      {"image in no group", [](auto& r, auto& c) {
         c.paired = false;
         r.image_in_group = false;
       }, Predicate::kGroup, "no availability group holds the image"},
      {"label", [](auto& r, auto&) { r.worker_labels = {{"metro", "ams"}}; }, Predicate::kLabels,
       "the worker's label metro is fra"},
      {"label unset", [](auto& r, auto&) { r.worker_labels = {{"x", "1"}}; }, Predicate::kLabels,
       "the worker's label x is not set"},
      {"label fits", [](auto& r, auto&) { r.worker_labels = {{"metro", "fra"}}; }, std::nullopt,
       ""},
      {"building", [](auto&, auto& c) {
         c.image_ready = false;
         c.cache_status = CacheStatus::kBuilding;
         c.eta_s = 7;
       }, Predicate::kImage, "the image is building there"},
      {"failed", [](auto&, auto& c) {
         c.image_ready = false;
         c.cache_status = CacheStatus::kFailed;
         c.cache_error = "DISK_FULL: make room";
       }, Predicate::kImage, "the image failed there: DISK_FULL: make room"},
      {"no entry", [](auto&, auto& c) {
         c.image_ready = false;
         c.cache_status.reset();
       }, Predicate::kImage, "the image is not on the worker"},
      {"lazy", [](auto& r, auto& c) {
         c.image_ready = false;
         r.lazy_pull = true;
       }, std::nullopt, ""},
      {"gpu", [](auto& r, auto&) { r.gpu_count = 1; }, Predicate::kGpu,
       "the worker has no GPU to give"},
      {"cpu", [](auto&, auto& c) { c.allocated.cpu_millicores = 3500; }, Predicate::kCpu,
       "not enough cpu: 500 millicores left, 1000 needed"},
      {"memory", [](auto&, auto& c) { c.allocated.memory_mb = 4000; }, Predicate::kMemory,
       "not enough memory: 96 MiB left, 608 needed"},
      {"disk", [](auto&, auto& c) { c.allocated.disk_mb = 9000; }, Predicate::kDisk,
       "not enough disk: 1000 MiB left, 1024 needed"},
      {"over", [](auto&, auto& c) { c.allocated.disk_mb = 20'000; }, Predicate::kDisk,
       "not enough disk: 0 MiB left, 1024 needed"},
      {"hidden", [](auto&, auto& c) {
         c.allocated.disk_mb = 9000;
         c.amounts_visible = false;
       }, Predicate::kDisk, "not enough disk"},
  };
  for (const Case& one : kCases) {
    PlacementRequest request = Small();
    PlacementCandidate candidate = Good("w");
    one.edit(request, candidate);
    const PlacementRow row = Judge(request, candidate);
    EXPECT_EQ(row.predicate, one.refused_by) << one.name;
    EXPECT_EQ(row.eligible, !one.refused_by) << one.name;
    EXPECT_EQ(row.shortfall, one.shortfall) << one.name;
    EXPECT_EQ(row.remedy.empty(), row.eligible) << one.name;
    if (std::string(one.name) == "building") {
      EXPECT_EQ(row.eta_s, 7);
    }
  }
}

TEST(Placement, TheErrorNamesWhatIsWrong) {
  PlacementCandidate ready = Good("ready");
  PlacementCandidate cold = Good("cold");
  cold.image_ready = false;
  cold.cache_status = CacheStatus::kPending;
  PlacementCandidate full = Good("full");
  full.allocated = full.room;
  PlacementCandidate offline = Good("offline");
  offline.status = WorkerStatus::kOffline;
  PlacementCandidate foreign = Good("foreign");
  foreign.paired = false;
  PlacementRequest lazy = Small();
  lazy.lazy_pull = true;
  struct {
    const char* name;
    PlacementRequest request;
    std::vector<PlacementCandidate> candidates;
    const char* code;
  } const kCases[] = {
      {"eligible", Small(), {cold, ready}, ""},
      {"nobody", Small(), {}, "NO_SUITABLE_WORKER"},
      {"cold", Small(), {cold}, "NO_SUITABLE_WORKER"},
      {"out of reach", Small(), {foreign}, "NO_SUITABLE_WORKER"},
      {"full", Small(), {cold, full}, "WORKER_UNAVAILABLE"},
      {"offline has it", Small(), {offline}, "WORKER_UNAVAILABLE"},
      {"lazy, nobody", lazy, {}, "WORKER_UNAVAILABLE"},
  };
  for (const auto& one : kCases) {
    const PlacementExplanation got = Explain(one.request, one.candidates);
    EXPECT_EQ(got.error_code, one.code) << one.name;
    EXPECT_EQ(got.error_message.empty(), got.error_code.empty()) << one.name;
  }
}

TEST(Placement, PrefersTheImageThenTheEmptierWorker) {
  SeededRng rng(1);
  PlacementRequest lazy = Small();
  lazy.lazy_pull = true;
  PlacementCandidate cold = Good("cold");
  cold.image_ready = false;
  PlacementCandidate busy = Good("busy");
  busy.allocated = {2000, 2048, 5000};
  PlacementCandidate busier = Good("busier");
  busier.allocated = {0, 3000, 0};  // the tightest resource counts
  EXPECT_EQ(Place(lazy, {cold, busier, busy}, rng), 2u);
  EXPECT_EQ(Place(lazy, {cold, busier}, rng), 1u);
}

TEST(Placement, TiesAreBrokenFairlyAndRepeatably) {
  std::vector<PlacementCandidate> equal;
  for (int i = 0; i < 4; ++i) equal.push_back(Good("w" + std::to_string(i)));
  std::vector<int> hits(4);
  SeededRng rng(5);
  SeededRng same(5);
  for (int i = 0; i < 4000; ++i) {
    const size_t chosen = *Place(Small(), equal, rng);
    EXPECT_EQ(chosen, *Place(Small(), equal, same));
    ++hits[chosen];
  }
  for (const int count : hits) {
    EXPECT_GT(count, 850);
    EXPECT_LT(count, 1150);
  }
}

TEST(Placement, RoomIsOvercommittedCpuAndReservedRest) {
  PlacementOptions options;
  options.cpu_overcommit = 2.5;
  options.memory_reserve_mb = 1000;
  options.disk_reserve_mb = 5000;
  EXPECT_EQ(RoomOf({4000, 8000, 4000}, options), (Resources{10'000, 7000, 0}));
}

TEST(Placement, RowsAreCappedAndCountsAreNot) {
  std::vector<PlacementCandidate> many;
  for (int i = 0; i < 200; ++i) {
    many.push_back(Good("w"));
    many.back().status = WorkerStatus::kOffline;
  }
  many.push_back(Good("last"));
  const PlacementExplanation got = Explain(Small(), many);
  EXPECT_EQ(got.rows.size(), kMaxPlacementRows);
  EXPECT_EQ(got.rows[0].worker_name, "last");
  EXPECT_EQ(got.counts.at("status"), 200u);
}

}  // namespace
}  // namespace bunker::controller
