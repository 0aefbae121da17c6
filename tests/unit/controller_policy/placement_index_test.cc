// The index against the plain scan: over random fleets and changes it places exactly what the scan
// could place, never beyond the room, and with few workers on one that scores best.
#include "controller/policy/placement_index.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "controller/policy/fanout.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(3600);

// The fleet as plain rows, and the index that is told the same.
class Fleet {
 public:
  Fleet(uint64_t seed, size_t workers) : rng_(seed), index_(options_), taken_(workers) {
    for (size_t i = 0; i < workers; ++i) {
      workers_.push_back(RandomWorker(i));
      index_.PutWorker(*workers_[i]);
    }
  }

  void Change() {
    const size_t i = rng_.Below(workers_.size());
    const std::string id = "wrk_" + std::to_string(i);
    switch (rng_.Below(6)) {
      case 0: {
        workers_[i] = RandomWorker(i);
        index_.PutWorker(*workers_[i]);
        break;
      }
      case 1: {
        if (rng_.Below(8) != 0) break;
        workers_[i].reset();
        index_.RemoveWorker(id);
        break;
      }
      case 2: {
        const std::string image = Image();
        const bool ready = rng_.Below(3) != 0;
        SetIn(ready_[image], id, ready);
        index_.SetReady(image, id, ready);
        break;
      }
      case 3: {
        const std::string group = Group();
        const bool paired = rng_.Below(3) != 0;
        SetIn(paired_[group], id, paired);
        index_.SetPaired(group, id, paired);
        break;
      }
      case 4: {
        if (taken_[i].empty()) break;
        index_.Give(id, taken_[i].back());
        taken_[i].pop_back();
        break;
      }
      case 5: {
        if (rng_.Below(4) == 0) index_.NoteFailure(id, kNow);
        break;
      }
    }
  }

  void Create() {
    PlacementRequest request;
    request.arch = rng_.Below(3) == 0 ? Arch::kUnspecified : Arch::kX86_64;
    request.lazy_pull = rng_.Below(3) == 0;
    request.wanted = {50 + rng_.Below(1500), 160 + rng_.Below(1500), 64 + rng_.Below(4000)};
    request.gpu_count = rng_.Below(30) == 0 ? 1 : 0;
    request.strategy = rng_.Below(2) == 0 ? PlacementStrategy::kPack : PlacementStrategy::kSpread;
    if (rng_.Below(4) == 0) request.network_profile = "registry";
    if (rng_.Below(4) == 0) request.worker_labels = {{"metro", Metro()}};
    if (rng_.Below(8) == 0) {
      request.bridges = {"br-lab"};
      request.bridge_workers.emplace();
      for (size_t i = 0; i < workers_.size(); ++i) {
        if (rng_.Below(3) != 0) request.bridge_workers->insert("wrk_" + std::to_string(i));
      }
    }
    if (rng_.Below(12) == 0) {
      request.snapshot_worker_id = "wrk_" + std::to_string(rng_.Below(workers_.size()));
    }
    PlacementQuery query;
    query.image_id = Image();
    const std::string tenant = rng_.Below(2) == 0 ? "a" : "b";
    query.viewer = {Scope::kTenant, tenant, tenant == "a" ? "p" : "q"};
    for (const char* group : {"g0", "g1"}) {
      if (rng_.Below(2) == 0) query.group_ids.push_back(group);
    }
    query.request = &request;
    const std::vector<PlacementCandidate> candidates = Candidates(query, request);
    const PlacementExplanation explained = Explain(request, candidates);
    const auto choice = index_.Find(query, kNow, rng_);
    ASSERT_EQ(choice.has_value(), explained.eligible > 0);
    placed_ += choice.has_value();
    refused_ += !choice.has_value();
    if (!choice) return;
    const auto chosen = std::find_if(candidates.begin(), candidates.end(), [&](const auto& one) {
      return one.worker_id == choice->worker_id;
    });
    ASSERT_NE(chosen, candidates.end());
    ASSERT_EQ(Refusal(request, *chosen), std::nullopt);
    ASSERT_EQ(choice->image_ready, chosen->image_ready);
    if (workers_.size() <= PlacementIndex::kWindow) {
      ASSERT_DOUBLE_EQ(Score(request, *chosen), explained.rows[0].score);
    }
    const size_t i = std::stoul(choice->worker_id.substr(4));
    taken_[i].push_back(request.wanted);
    index_.Take(choice->worker_id, request.wanted);
    const Resources room = RoomOf(workers_[i]->facts.capacity, options_);
    ASSERT_LE(index_.Allocated(choice->worker_id).cpu_millicores, room.cpu_millicores);
    ASSERT_LE(index_.Allocated(choice->worker_id).memory_mb, room.memory_mb);
    ASSERT_LE(index_.Allocated(choice->worker_id).disk_mb, room.disk_mb);
  }

  // The index told anew of what there is now.
  void CheckAgainstFresh() const {
    PlacementIndex fresh(options_);
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (workers_[i]) fresh.PutWorker(*workers_[i]);
      for (const Resources& one : taken_[i]) fresh.Take("wrk_" + std::to_string(i), one);
    }
    for (const auto& [image, ids] : ready_) {
      for (const std::string& id : ids) fresh.SetReady(image, id, true);
    }
    for (const auto& [group, ids] : paired_) {
      for (const std::string& id : ids) fresh.SetPaired(group, id, true);
    }
    ASSERT_EQ(index_.Difference(fresh), "");
  }

  int placed() const { return placed_; }
  int refused() const { return refused_; }

 private:
  std::string Image() { return "img_" + std::to_string(rng_.Below(2)); }
  std::string Group() { return "g" + std::to_string(rng_.Below(2)); }
  std::string Metro() { return rng_.Below(2) == 0 ? "fra" : "ams"; }

  static void SetIn(std::set<std::string>& ids, const std::string& id, bool in) {
    if (in) {
      ids.insert(id);
    } else {
      ids.erase(id);
    }
  }

  Worker RandomWorker(size_t i) {
    Worker worker;
    worker.id = "wrk_" + std::to_string(i);
    worker.name = "w" + std::to_string(i);
    worker.status = rng_.Below(6) == 0 ? WorkerStatus::kDraining : WorkerStatus::kOnline;
    worker.facts.arch = rng_.Below(4) == 0 ? Arch::kAarch64 : Arch::kX86_64;
    worker.facts.capacity = {rng_.Below(6000), rng_.Below(6000), rng_.Below(20'000)};
    if (rng_.Below(2) == 0) worker.token_labels["metro"] = Metro();
    if (rng_.Below(3) != 0) worker.facts.network_profiles = {"registry"};
    if (rng_.Below(3) != 0) worker.facts.bridges = {"br-lab", "br-wan"};
    switch (rng_.Below(4)) {
      case 0:
        worker.ownership = {Scope::kTenant, "a", "p"};
        break;
      case 1:
        worker.ownership = {Scope::kPartner, "", "p"};
        break;
      default:
        worker.ownership = {Scope::kPlatform, "", ""};
        worker.shared = rng_.Below(4) != 0;
    }
    return worker;
  }

  // Straight from the rows.
  std::vector<PlacementCandidate> Candidates(const PlacementQuery& query,
                                             const PlacementRequest& request) {
    std::vector<PlacementCandidate> candidates;
    labels_.clear();
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (!workers_[i] || !MayUseWorker(query.viewer, *workers_[i])) continue;
      const Worker& worker = *workers_[i];
      PlacementCandidate one;
      one.worker_id = worker.id;
      one.status = worker.status;
      one.arch = worker.facts.arch;
      labels_.push_back(std::make_unique<std::map<std::string, std::string>>(worker.labels()));
      one.labels = labels_.back().get();
      one.networks = &worker.facts.network_profiles;
      one.bridges = &worker.facts.bridges;
      one.room = RoomOf(worker.facts.capacity, options_);
      for (const Resources& taken : taken_[i]) one.allocated += taken;
      one.paired = request.lazy_pull && query.group_ids.empty();
      for (const std::string& group : query.group_ids) {
        one.paired |= paired_[group].count(worker.id) > 0;
      }
      one.image_ready = ready_[query.image_id].count(worker.id) > 0;
      one.recent_failures = index_.Candidate(worker.id, kNow).recent_failures;
      candidates.push_back(std::move(one));
    }
    return candidates;
  }

  SeededRng rng_;
  const PlacementOptions options_;
  PlacementIndex index_;
  std::vector<std::optional<Worker>> workers_;
  std::vector<std::vector<Resources>> taken_;
  std::map<std::string, std::set<std::string>> ready_;
  std::map<std::string, std::set<std::string>> paired_;
  std::vector<std::unique_ptr<std::map<std::string, std::string>>> labels_;
  int placed_ = 0;
  int refused_ = 0;
};

TEST(PlacementIndexProperty, PlacesWhatThePlainScanCouldAndNeverBeyondTheRoom) {
  int placed = 0;
  int refused = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Fleet fleet(seed, seed % 3 == 0 ? 150 : 3 + seed % 25);
    for (int step = 0; step < 400; ++step) {
      fleet.Change();
      fleet.Create();
      if (testing::Test::HasFatalFailure()) return;
    }
    fleet.CheckAgainstFresh();
    if (testing::Test::HasFatalFailure()) return;
    placed += fleet.placed();
    refused += fleet.refused();
  }
  // Both outcomes were really tried.
  EXPECT_GT(placed, 2000);
  EXPECT_GT(refused, 2000);
}

Worker Plain(const std::string& id, Resources capacity) {
  Worker worker;
  worker.id = id;
  worker.name = id;
  worker.status = WorkerStatus::kOnline;
  worker.shared = true;
  worker.ownership = {Scope::kPlatform, "", ""};
  worker.facts.arch = Arch::kX86_64;
  worker.facts.capacity = capacity;
  return worker;
}

TEST(PlacementIndex, FindsTheOnlyWorkerWithRoomAmongThousands) {
  PlacementIndex index({});
  SeededRng rng(3);
  for (int i = 0; i < 5000; ++i) {
    const std::string id = "w" + std::to_string(i);
    index.PutWorker(Plain(id, {4000, 4096, 10'000}));
    index.SetReady("img", id, true);
    index.SetPaired("g", id, true);
    // Roomy, but not for this one.
    if (i != 3217) index.Take(id, {3500, 1000, 1000});
  }
  PlacementRequest request;
  request.wanted = {1000, 512, 512};
  PlacementQuery query{"img", {Scope::kTenant, "t", "p"}, {"g"}, &request};
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(index.Find(query, kNow, rng), (PlacementChoice{"w3217", true}));
  }
  index.Take("w3217", {3500, 0, 0});
  EXPECT_EQ(index.Find(query, kNow, rng), std::nullopt);
}

TEST(PlacementIndex, SpreadsEvenlyAndPacksTightly) {
  for (const PlacementStrategy strategy : {PlacementStrategy::kSpread, PlacementStrategy::kPack}) {
    PlacementIndex index({});
    SeededRng rng(11);
    for (int i = 0; i < 1000; ++i) {
      const std::string id = "w" + std::to_string(i);
      index.PutWorker(Plain(id, {4000, 8192, 10'000}));
      index.SetReady("img", id, true);
      index.SetPaired("g", id, true);
    }
    PlacementRequest request;
    request.wanted = {1000, 608, 512};
    request.strategy = strategy;
    PlacementQuery query{"img", {Scope::kTenant, "t", "p"}, {"g"}, &request};
    for (int i = 0; i < 2000; ++i) {
      index.Take(index.Find(query, kNow, rng)->worker_id, request.wanted);
    }
    std::map<uint64_t, int> workers_with;
    for (int i = 0; i < 1000; ++i) {
      ++workers_with[index.Allocated("w" + std::to_string(i)).cpu_millicores / 1000];
    }
    if (strategy == PlacementStrategy::kSpread) {
      EXPECT_EQ(workers_with[4], 0);
      EXPECT_GT(workers_with[2], 700);
    } else {
      // Few are begun that are not filled up.
      EXPECT_GT(workers_with[4], 400);
      EXPECT_GT(workers_with[0], 400);
    }
  }
}

TEST(PlacementIndex, FailuresAndBootsMakeAWorkerLessWantedForAWhile) {
  PlacementIndex index({});
  SeededRng rng(5);
  for (const char* id : {"good", "bad"}) {
    index.PutWorker(Plain(id, {100'000, 100'000, 100'000}));
    index.SetReady("img", id, true);
    index.SetPaired("g", id, true);
  }
  PlacementRequest request;
  request.wanted = {1000, 608, 512};
  PlacementQuery query{"img", {Scope::kTenant, "t", "p"}, {"g"}, &request};
  index.NoteFailure("bad", kNow);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(index.Find(query, kNow, rng)->worker_id, "good");
  // It is still used where nothing else has room, and forgiven after a while.
  index.Take("good", {99'500, 0, 0});
  EXPECT_EQ(index.Find(query, kNow, rng)->worker_id, "bad");
  index.Give("good", {99'500, 0, 0});
  EXPECT_LT(index.Candidate("bad", kNow + absl::Hours(2)).recent_failures, 1e-6);
  index.AddBooting("good", 5);
  EXPECT_EQ(index.Find(query, kNow + absl::Hours(2), rng)->worker_id, "bad");
}

}  // namespace
}  // namespace bunker::controller
