// The tutorial of seed 000, told by the engine alone.
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

TEST(Story, RegisterAttachWarmResolveReadyCreateDeactivateSweep) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");

  // Registering answers at once; no group holds it, so nobody is to bake it.
  const RowPtr<Image> image = h.Register("r-stats");
  EXPECT_EQ(h.WarmOf(image->id), WarmSummary{});
  PlacementExplanation why;
  auto refused = h.Create("r-stats", nullptr, &why);
  EXPECT_EQ(ReasonOf(refused.status()), "NO_SUITABLE_WORKER");
  EXPECT_EQ(why.counts.at("group"), 2u);

  // The group implies two pairs; while the ref is unresolved one worker goes first.
  h.MakeGroup("stats", {image->id}, {w1, "w2"});
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{2, 0, 0, 0}));
  ASSERT_NE(h.ImageRow(w1, image->id), nullptr);
  EXPECT_EQ(h.ImageRow(w1, image->id)->manifest_digest, "");
  EXPECT_EQ(h.ImageRow(w2, image->id), nullptr);
  refused = h.Create("r-stats", nullptr, &why);
  EXPECT_EQ(ReasonOf(refused.status()), "NO_SUITABLE_WORKER");
  EXPECT_EQ(why.counts.at("image"), 2u);

  // What it finds is pinned once and given to both.
  h.ObserveImage(w1, image->id, CacheStatus::kBuilding, [](ImageObservation& seen) {
    Harness::Resolve(seen);
    seen.stage = "pulling";
    seen.bytes_done = 10;
    seen.bytes_total = 110;
    seen.rate_bytes_per_s = 20;
  });
  EXPECT_EQ(h.ImageRow(w1, image->id)->manifest_digest, kDigestA);
  ASSERT_NE(h.ImageRow(w2, image->id), nullptr);
  EXPECT_EQ(h.ImageRow(w2, image->id)->manifest_digest, kDigestA);
  EXPECT_EQ(h.Entry(image->id, w1)->stage, "pulling");
  EXPECT_DOUBLE_EQ(*h.Entry(image->id, w1)->eta_s(), 5.0);
  h.MakeReady(w1, image->id);
  h.MakeReady(w2, image->id);
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{0, 2, 0, 0}));
  const RowPtr<Image> baked =
      *h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, "r-stats"); });
  EXPECT_EQ(baked->rootfs_digest, kRootfs);
  EXPECT_EQ(baked->size_in_bytes(), 100u << 20);
  EXPECT_EQ(baked->url(), "127.0.0.1:5000/library/x@" + kDigestA);
  EXPECT_EQ(baked->args(), (std::vector<std::string>{"/bin/sh", "-l"}));

  // Four bunkers spread over both.
  std::map<std::string, int> placed;
  std::vector<RowPtr<Bunker>> bunkers;
  for (int i = 0; i < 4; ++i) {
    auto row = h.Create("r-stats");
    ASSERT_TRUE(row.ok()) << row.status();
    EXPECT_EQ((*row)->status, BunkerStatus::kProvisioning);
    EXPECT_EQ((*row)->name.substr(0, 8), "r-stats-");
    ++placed[(*row)->worker_id];
    bunkers.push_back(*row);
  }
  EXPECT_EQ(placed[w1], 2);
  EXPECT_EQ(placed[w2], 2);
  const Bunker& first = *bunkers[0];
  const BunkerAssignment* row = h.BunkerRow(first.worker_id, first.id);
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(row->env.at("LANG"), "C");
  EXPECT_FALSE(row->stopped);
  h.ObserveBunker(first.worker_id, first.id, BunkerStatus::kRunning);
  EXPECT_EQ(h.Get(first.id)->status, BunkerStatus::kRunning);

  // Retired: it goes on where it runs, and new ones are refused.
  const auto retired =
      h.Do([&](Engine& e, Turn& t) { return e.Deactivate(t, h.admin, image->id); });
  ASSERT_TRUE(retired.ok());
  EXPECT_EQ(ReasonOf(h.Create("r-stats").status()), "IMAGE_INACTIVE");
  for (size_t i = 1; i < bunkers.size(); ++i) {
    h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, bunkers[i]->id); });
    EXPECT_TRUE(h.BunkerRow(bunkers[i]->worker_id, bunkers[i]->id)->stopped);
    h.ObserveBunker(bunkers[i]->worker_id, bunkers[i]->id, BunkerStatus::kStopped);
    EXPECT_EQ(h.BunkerRow(bunkers[i]->worker_id, bunkers[i]->id), nullptr);
    EXPECT_EQ(h.Get(bunkers[i]->id)->status, BunkerStatus::kStopped);
    EXPECT_TRUE(h.Get(bunkers[i]->id)->terminated_at.has_value());
  }
  const std::string other = first.worker_id == w1 ? w2 : w1;
  h.Advance(absl::Seconds(125));
  EXPECT_EQ(h.ImageRow(other, image->id), nullptr);
  EXPECT_EQ(h.Entry(image->id, other)->status, CacheStatus::kEvicted);
  ASSERT_NE(h.ImageRow(first.worker_id, image->id), nullptr);
  EXPECT_EQ(h.Entry(image->id, first.worker_id)->status, CacheStatus::kReady);

  // Its last user gone, the next sweep takes it.
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, first.name); });
  h.ObserveBunker(first.worker_id, first.id, BunkerStatus::kStopped);
  h.Advance(absl::Seconds(125));
  EXPECT_EQ(h.ImageRow(first.worker_id, image->id), nullptr);
}

TEST(Story, AWorkerAddedLaterWarmsByItself) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> a = h.Register("a");
  const RowPtr<Image> b = h.Register("b");
  h.MakeGroup("g", {"a", "b"}, {"w1"});
  h.MakeReady(w1, a->id);
  const std::string w2 = h.AddWorker("w2");
  h.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, h.admin, "g", "w2"); });
  ASSERT_NE(h.ImageRow(w2, a->id), nullptr);
  EXPECT_EQ(h.ImageRow(w2, a->id)->manifest_digest, kDigestA);
  EXPECT_EQ(h.ImageRow(w2, b->id), nullptr);  // w1 resolves it first
  EXPECT_EQ(h.WarmOf(a->id), (WarmSummary{1, 1, 0, 0}));

  // Leaving: what is not there stops at once, what is there waits for the sweep.
  h.Must([&](Engine& e, Turn& t) { return e.DetachWorker(t, h.admin, "g", "w2"); });
  EXPECT_EQ(h.ImageRow(w2, a->id), nullptr);
  h.Must([&](Engine& e, Turn& t) { return e.DetachImage(t, h.admin, "g", "a"); });
  ASSERT_NE(h.ImageRow(w1, a->id), nullptr);
  EXPECT_TRUE(h.ImageRow(w1, a->id)->expendable);
  // Back before the sweep: nothing was lost.
  h.Must([&](Engine& e, Turn& t) { return e.AttachImage(t, h.admin, "g", "a"); });
  ASSERT_NE(h.ImageRow(w1, a->id), nullptr);
  EXPECT_EQ(h.ImageRow(w1, a->id)->attempt, 1u);
  EXPECT_FALSE(h.ImageRow(w1, a->id)->expendable);
  EXPECT_EQ(h.WarmOf(a->id), (WarmSummary{0, 1, 0, 0}));
  // After the sweep, but before the worker has said that the file is gone: it may never have heard
  // that it was to go. If it had, it says so, and makes it again.
  h.Must([&](Engine& e, Turn& t) { return e.DeleteGroup(t, h.admin, "g"); });
  h.Advance(absl::Seconds(125));
  EXPECT_EQ(h.ImageRow(w1, a->id), nullptr);
  h.MakeGroup("g", {"a"}, {"w1"});
  EXPECT_EQ(h.WarmOf(a->id), (WarmSummary{0, 1, 0, 0}));
  h.Run([&](Engine& e, Turn& t) { e.OnObservationRemoved(t, w1, ImageRowName(a->id)); });
  EXPECT_EQ(h.WarmOf(a->id), (WarmSummary{1, 0, 0, 0}));
  h.MakeReady(w1, a->id);
  // After both: from the start, as a new attempt.
  h.Must([&](Engine& e, Turn& t) { return e.DeleteGroup(t, h.admin, "g"); });
  h.Advance(absl::Seconds(125));
  h.Run([&](Engine& e, Turn& t) { e.OnObservationRemoved(t, w1, ImageRowName(a->id)); });
  h.MakeGroup("g", {"a"}, {"w1"});
  EXPECT_EQ(h.ImageRow(w1, a->id)->attempt, 2u);
  EXPECT_EQ(h.WarmOf(a->id), (WarmSummary{1, 0, 0, 0}));
  // A job of the attempt before that was never told to stop: its file is good.
  h.ObserveImage(w1, a->id, CacheStatus::kReady, [](ImageObservation& seen) {
    Harness::Resolve(seen);
    seen.attempt = 1;
  });
  EXPECT_EQ(h.WarmOf(a->id), (WarmSummary{0, 1, 0, 0}));
}

TEST(Story, LazyPullTakesAColdWorker) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("lazy", /*lazy=*/true);
  const auto row = h.Create("lazy");
  ASSERT_TRUE(row.ok()) << row.status();
  ASSERT_NE(h.ImageRow(w1, image->id), nullptr);
  ASSERT_NE(h.BunkerRow(w1, (*row)->id), nullptr);
  EXPECT_FALSE(h.Get((*row)->id)->boot_since.has_value());
  h.MakeReady(w1, image->id);
  EXPECT_TRUE(h.Get((*row)->id)->boot_since.has_value());
  EXPECT_EQ(h.Get((*row)->id)->image_digest, kDigestA);
  EXPECT_EQ(h.BunkerRow(w1, (*row)->id)->env.at("LANG"), "C");
  h.ObserveBunker(w1, (*row)->id, BunkerStatus::kRunning);
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, (*row)->id); });
  h.ObserveBunker(w1, (*row)->id, BunkerStatus::kStopped);
  // Kept for the next one while the image is in service.
  h.Advance(absl::Seconds(125));
  EXPECT_NE(h.ImageRow(w1, image->id), nullptr);
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, h.admin, "lazy"); });
  h.Advance(absl::Seconds(125));
  EXPECT_EQ(h.ImageRow(w1, image->id), nullptr);
}

}  // namespace
}  // namespace bunker::controller
