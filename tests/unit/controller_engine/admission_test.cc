// When wanted rows become work: bounds, turns, deadlines, and the worker's disk.
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

EngineOptions Bounded(uint32_t per_registry, uint32_t per_worker) {
  EngineOptions options;
  options.work_limits.per_registry = per_registry;
  options.work_limits.per_worker = per_worker;
  return options;
}

// Rows that workers have been given and that are not ready.
std::vector<std::pair<std::string, std::string>> Open(Harness& h) {
  std::vector<std::pair<std::string, std::string>> open;
  for (const auto& [key, row] : h.desired) {
    const auto* image = std::get_if<ImageAssignment>(&row->row);
    if (image == nullptr) continue;
    const RowPtr<CacheEntry> entry = h.Entry(image->image_id, row->worker_id);
    if (entry->open()) open.emplace_back(row->worker_id, image->image_id);
  }
  return open;
}

void Bake(Harness& h, const std::string& worker, const std::string& image, uint64_t mib) {
  h.ObserveImage(worker, image, CacheStatus::kReady, [&](ImageObservation& seen) {
    Harness::Resolve(seen);
    seen.resolved->layers_bytes = (mib / 2) << 20;
    seen.recipe_digest = "recipe " + image;
    seen.allocated_bytes = mib << 20;
  });
}

TEST(Admission, ALargeFleetHitsARegistryWithSoManyAtOnce) {
  Harness h(Bounded(8, 2));
  std::vector<std::string> workers;
  for (int i = 0; i < 60; ++i) workers.push_back(h.AddWorker("w" + std::to_string(i)));
  const RowPtr<Image> mine = h.Register("mine");
  h.MakeGroup("g", {"mine"}, workers);
  EXPECT_EQ(Open(h).size(), 1u);  // one resolves
  size_t rounds = 0;
  for (; h.WarmOf(mine->id).ready < 60 && rounds < 100; ++rounds) {
    const auto open = Open(h);
    ASSERT_LE(open.size(), 8u);
    ASSERT_FALSE(open.empty());
    for (const auto& [worker, image] : open) Bake(h, worker, image, 10);
    const WarmSummary warm = h.WarmOf(mine->id);
    ASSERT_EQ(warm.queued + warm.ready + warm.failed + warm.skipped, 60u);
  }
  EXPECT_EQ(rounds, 1u + (59 + 7) / 8);
}

TEST(Admission, ALaterTenantDoesNotWaitForTheQueueOfAnEarlierOne) {
  Harness h(Bounded(2, 2));
  std::vector<std::string> workers;
  for (int i = 0; i < 30; ++i) workers.push_back(h.AddWorker("w" + std::to_string(i)));
  const RowPtr<Image> big = h.Register("big");
  h.MakeGroup("g", {"big"}, workers);
  Bake(h, Open(h)[0].first, big->id, 10);  // 29 wait
  Caller other = h.admin;
  other.tenant_id = "tnt_other";
  other.role = Role::kTenantAdmin;
  RegisterImageSpec spec;
  spec.name = "small";
  spec.build_source.ref = "127.0.0.1:5000/other/small:1";
  spec.size_mib = 64;
  const RowPtr<Image> small =
      *h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, other, spec); });
  CreateGroupSpec group;
  group.name = "theirs";
  h.Must([&](Engine& e, Turn& t) { return e.CreateGroup(t, other, group); });
  h.Must([&](Engine& e, Turn& t) { return e.AttachImage(t, other, "theirs", "small"); });
  for (int i = 0; i < 3; ++i) {
    h.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, other, "theirs", workers[i]); });
  }
  for (int round = 0; round < 5; ++round) {
    for (const auto& [worker, image] : Open(h)) Bake(h, worker, image, 10);
  }
  EXPECT_EQ(h.WarmOf(small->id).ready, 3u);
  EXPECT_LT(h.WarmOf(big->id).ready, 12u);
}

TEST(Admission, AWorkerThatGetsNowhereLosesItsTurn) {
  EngineOptions options = Bounded(1, 1);
  options.pending_deadline = absl::Minutes(2);
  options.stall_deadline = absl::Minutes(3);
  Harness h(options);
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1});
  h.MakeReady(w1, image->id);
  h.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, h.admin, "g", "w2"); });
  h.Advance(absl::Seconds(118));
  EXPECT_EQ(h.Entry(image->id, w2)->status, CacheStatus::kPending);
  h.Advance(absl::Seconds(4));
  EXPECT_EQ(h.Entry(image->id, w2)->status, CacheStatus::kFailed);
  EXPECT_NE(h.Entry(image->id, w2)->error_message.find("did not begin for 120 s"),
            std::string::npos);
  EXPECT_TRUE(h.Entry(image->id, w2)->retry_at.has_value());
  h.Advance(absl::Seconds(12));
  ASSERT_EQ(h.ImageRow(w2, image->id)->attempt, 2u);
  uint64_t bytes = 0;
  const auto progress = [&](ImageObservation& seen) {
    seen.stage = "pulling";
    seen.bytes_done = bytes;
  };
  for (int i = 0; i < 5; ++i) {  // slow, but it moves
    bytes += 100;
    h.ObserveImage(w2, image->id, CacheStatus::kBuilding, progress);
    h.Advance(absl::Minutes(2));
  }
  EXPECT_EQ(h.Entry(image->id, w2)->status, CacheStatus::kBuilding);
  h.Advance(absl::Seconds(65));  // alive, but it does not any more
  EXPECT_EQ(h.Entry(image->id, w2)->status, CacheStatus::kFailed);
}

class DiskTest : public testing::Test {
 protected:
  void SetUp() override { w1_ = h_.AddWorker("w1", {4000, 8192, 1000}); }

  RowPtr<Image> Make(const std::string& name, uint64_t mib) {
    const RowPtr<Image> image = h_.Register(name);
    h_.MakeGroup("g-" + name, {name}, {w1_});
    if (h_.ImageRow(w1_, image->id) != nullptr) Bake(h_, w1_, image->id, mib);
    return image;
  }

  Harness h_;
  std::string w1_;
};

TEST_F(DiskTest, WhatDoesNotFitNamesWhatIsInTheWayAndComesWhenItHasGone) {
  const RowPtr<Image> a = Make("a", 400);
  const RowPtr<Image> b = Make("b", 300);
  // Another worker bakes it first, so that its size is known.
  const std::string w2 = h_.AddWorker("w2");
  const RowPtr<Image> c = h_.Register("c");
  h_.MakeGroup("g-c", {"c"}, {w2});
  Bake(h_, w2, c->id, 400);  // and its layers: 600 MiB in all
  h_.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, h_.admin, "g-c", "w1"); });
  EXPECT_EQ(h_.ImageRow(w1_, c->id), nullptr);
  RowPtr<CacheEntry> entry = h_.Entry(c->id, w1_);
  EXPECT_EQ(entry->error_code, "DISK_FULL");
  EXPECT_NE(entry->error_message.find("600 MiB"), std::string::npos) << entry->error_message;
  EXPECT_NE(entry->error_message.find("(a)"), std::string::npos) << entry->error_message;
  EXPECT_EQ(h_.WarmOf(c->id), (WarmSummary{0, 1, 0, 1}));
  h_.Must([&](Engine& e, Turn& t) { return e.DetachImage(t, h_.admin, "g-a", "a"); });
  // What no group wants may go for it at once; the turn comes when the worker has dropped it.
  EXPECT_EQ(h_.ImageRow(w1_, a->id), nullptr);
  EXPECT_EQ(h_.ImageRow(w1_, c->id), nullptr);
  EXPECT_EQ(h_.WarmOf(c->id), (WarmSummary{1, 1, 0, 0}));
  h_.Run([&](Engine& e, Turn& t) { e.OnObservationRemoved(t, w1_, ImageRowName(a->id)); });
  ASSERT_NE(h_.ImageRow(w1_, c->id), nullptr);
  EXPECT_EQ(h_.Entry(c->id, w1_)->error_code, "");
}

TEST_F(DiskTest, WhatCanNeverFitIsLeftOut) {
  const std::string w2 = h_.AddWorker("w2");
  const RowPtr<Image> image = h_.Register("huge");
  h_.MakeGroup("g", {"huge"}, {w2});
  Bake(h_, w2, image->id, 900);
  h_.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, h_.admin, "g", "w1"); });
  EXPECT_EQ(h_.ImageRow(w1_, image->id), nullptr);
  EXPECT_NE(h_.Entry(image->id, w1_)->error_message.find("can never fit"), std::string::npos);
  EXPECT_EQ(h_.WarmOf(image->id), (WarmSummary{0, 1, 0, 1}));
  h_.Connect(w1_, {4000, 8192, 5000});  // a larger disk
  EXPECT_NE(h_.ImageRow(w1_, image->id), nullptr);
}

TEST_F(DiskTest, AFileThatTheWorkerDroppedIsEvictedOrMadeAgain) {
  const RowPtr<Image> image = Make("a", 100);
  EXPECT_FALSE(h_.ImageRow(w1_, image->id)->expendable);
  h_.ObserveImage(w1_, image->id, CacheStatus::kEvicted);  // wanted meanwhile
  EXPECT_EQ(h_.Entry(image->id, w1_)->status, CacheStatus::kPending);
  EXPECT_EQ(h_.ImageRow(w1_, image->id)->attempt, 2u);
  Bake(h_, w1_, image->id, 100);
  h_.Must([&](Engine& e, Turn& t) { return e.DetachImage(t, h_.admin, "g-a", "a"); });
  EXPECT_TRUE(h_.ImageRow(w1_, image->id)->expendable);
  h_.ObserveImage(w1_, image->id, CacheStatus::kEvicted);
  EXPECT_EQ(h_.ImageRow(w1_, image->id), nullptr);
}

TEST_F(DiskTest, WhatRunsIsNeverEvictedAndGcSaysWhy) {
  const RowPtr<Image> used = Make("used", 100);
  const RowPtr<Image> held = Make("held", 100);
  const RowPtr<Image> loose = Make("loose", 100);
  const RowPtr<Bunker> bunker =
      *h_.Create("used", [](CreateBunkerSpec& spec) { spec.disk_mb = 64; });
  h_.Must([&](Engine& e, Turn& t) { return e.DetachImage(t, h_.admin, "g-loose", "loose"); });
  h_.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, h_.admin, "used"); });
  const auto collect = [&](bool dry_run) {
    return *h_.Do([&](Engine& e, Turn& t) { return e.CollectWorker(t, h_.admin, "w1", dry_run); });
  };
  const CollectReport dry = collect(true);
  ASSERT_EQ(dry.evicted.size(), 1u);
  EXPECT_EQ(dry.evicted[0].image->name, "loose");
  EXPECT_EQ(dry.evicted[0].bytes, uint64_t{100} << 20);
  ASSERT_EQ(dry.pinned.size(), 2u);
  EXPECT_NE(h_.ImageRow(w1_, loose->id), nullptr);
  EXPECT_EQ(collect(false).evicted.size(), 1u);
  EXPECT_EQ(h_.ImageRow(w1_, loose->id), nullptr);
  EXPECT_NE(h_.ImageRow(w1_, used->id), nullptr);
  EXPECT_NE(h_.ImageRow(w1_, held->id), nullptr);
  h_.Advance(absl::Minutes(5));
  EXPECT_NE(h_.ImageRow(w1_, used->id), nullptr);
  h_.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h_.admin, bunker->id); });
  h_.ObserveBunker(w1_, bunker->id, BunkerStatus::kStopped);
  EXPECT_NE(h_.ImageRow(w1_, used->id), nullptr);
  h_.Advance(absl::Seconds(125));
  EXPECT_EQ(h_.ImageRow(w1_, used->id), nullptr);
}

TEST_F(DiskTest, TheCacheViewSinceAnId) {
  const RowPtr<Image> image = Make("a", 100);
  const auto since = [&](std::optional<uint64_t> after) {
    return *h_.Do([&](Engine& e, Turn&) { return e.CacheSince(h_.admin, "a", after); });
  };
  const CacheDelta all = since(std::nullopt);
  EXPECT_TRUE(all.complete);
  ASSERT_EQ(all.rows.size(), 1u);
  EXPECT_TRUE(since(all.upto).rows.empty());
  EXPECT_FALSE(since(all.upto).complete);
  const std::string w2 = h_.AddWorker("w2");
  h_.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, h_.admin, "g-a", "w2"); });
  const CacheDelta more = since(all.upto);
  ASSERT_EQ(more.rows.size(), 1u);
  EXPECT_EQ(more.rows[0].worker_name, "w2");
  h_.Must([&](Engine& e, Turn& t) { return e.DetachWorker(t, h_.admin, "g-a", "w2"); });
  const CacheDelta less = since(more.upto);
  EXPECT_TRUE(less.rows.empty());
  EXPECT_EQ(less.removed, std::vector<std::string>{w2});
  EXPECT_TRUE(since(less.upto + 1000).complete);  // of another store
  // Once the row is forgotten, so is that it went.
  h_.Advance(absl::Hours(25));
  EXPECT_TRUE(since(more.upto).complete);
  EXPECT_FALSE(since(since(std::nullopt).upto).complete);
}

}  // namespace
}  // namespace bunker::controller
