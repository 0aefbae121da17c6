#include "common/base/id.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

TEST(Images, ATakenNameStaysTaken) {
  Harness h;
  h.Register("a");
  RegisterImageSpec spec;
  spec.name = "a";
  auto again = h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, h.admin, spec); });
  EXPECT_EQ(ReasonOf(again.status()), "SLUG_CONFLICT");
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, h.admin, "a"); });
  again = h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, h.admin, spec); });
  EXPECT_EQ(ReasonOf(again.status()), "SLUG_CONFLICT");
  spec.scope = Scope::kPlatform;
  again = h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, h.admin, spec); });
  EXPECT_TRUE(again.ok()) << again.status();  // unique per scope
}

TEST(Images, AreFoundByEverySpelling) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("r-base");
  h.MakeGroup("g", {"r-base"}, {"w1"});
  h.MakeReady(w1, image->id);
  RegisterImageSpec hub;
  hub.name = "hub";
  hub.build_source.ref = "docker.io/r-base:4.4";
  h.Must([&](Engine& e, Turn& t) { return e.RegisterImage(t, h.admin, hub); });
  const auto find = [&](const std::string& ref) {
    const auto found = h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, ref); });
    return found.ok() ? (*found)->name : ReasonOf(found.status());
  };
  EXPECT_EQ(find(image->id), "r-base");
  EXPECT_EQ(find(UuidOf(image->id)), "r-base");
  EXPECT_EQ(find("r-base"), "r-base");
  EXPECT_EQ(find("r-base@" + kDigestA), "r-base");
  EXPECT_EQ(find("r-base@" + kDigestA.substr(0, 7 + 12)), "r-base");
  EXPECT_EQ(find("127.0.0.1:5000/library/x@" + kDigestA), "r-base");
  EXPECT_EQ(find("library/x@" + kDigestA), "r-base");
  EXPECT_EQ(find("127.0.0.1:5000/library/r-base:1"), "r-base");
  EXPECT_EQ(find("library/r-base:1"), "r-base");
  EXPECT_EQ(find("docker.io/r-base:4.4"), "hub");
  EXPECT_EQ(find("docker.io/library/r-base:4.4"), "hub");
  EXPECT_EQ(find("r-base:4.4"), "hub");
  EXPECT_EQ(find("r-base:4.5"), "NOT_FOUND");
  EXPECT_EQ(find("r-base@" + kDigestB), "NOT_FOUND");
  EXPECT_EQ(find("r-base@sha256:aaaa"), "NOT_FOUND");
  EXPECT_EQ(find(""), "NOT_FOUND");
}

TEST(Images, ListsNewestFirstInPagesThatInsertsDontShift) {
  Harness h;
  for (int i = 0; i < 7; ++i) {
    h.Register("image-" + std::to_string(i));
    h.loop.Advance(absl::Milliseconds(2));
  }
  PageSpec page;
  page.limit = 3;
  std::vector<std::string> names;
  bool more = true;
  while (more) {
    const Page<Image> got =
        h.Do([&](Engine& e, Turn&) { return e.ListImages(h.admin, {}, page); });
    for (const auto& image : got.rows) names.push_back(image->name);
    more = got.has_more;
    page.after_id = got.rows.back()->id;
    h.Register("new-" + std::to_string(names.size()));
  }
  EXPECT_EQ(names, (std::vector<std::string>{"image-6", "image-5", "image-4", "image-3",
                                             "image-2", "image-1", "image-0"}));
  ImageFilter filter;
  filter.name = "image-3";
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.ListImages(h.admin, filter, {}); }).rows.size(),
            1u);
}

TEST(Images, TheSecondWorkerResolvesWhereTheFirstFails) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1, w2});
  const auto fail = [](ImageObservation& seen) {
    seen.error_code = "REGISTRY_AUTH_FAILED";
    seen.error_message = "401: log in";
  };
  h.ObserveImage(w1, image->id, CacheStatus::kFailed, fail);
  ASSERT_NE(h.ImageRow(w2, image->id), nullptr);
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{1, 0, 1, 0}));
  h.ObserveImage(w2, image->id, CacheStatus::kFailed, fail);
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{0, 0, 2, 0}));
  EXPECT_EQ(h.Entry(image->id, w1)->error_message, "401: log in");
  // Not retryable: nothing happens by itself; warm forces both.
  h.Advance(absl::Minutes(20));
  EXPECT_EQ(h.ImageRow(w1, image->id)->attempt, 1u);
  const auto warm = h.Do([&](Engine& e, Turn& t) { return e.Warm(t, h.admin, "a"); });
  EXPECT_EQ(*warm, (WarmSummary{2, 0, 0, 0}));
  // Both have a new attempt; one of them resolves the ref, the other waits for what it finds.
  EXPECT_EQ(h.Entry(image->id, w1)->attempt, 2u);
  EXPECT_EQ(h.Entry(image->id, w2)->attempt, 2u);
  const std::string& one = h.ImageRow(w1, image->id) != nullptr ? w1 : w2;
  EXPECT_EQ(h.ImageRow(one == w1 ? w2 : w1, image->id), nullptr);
  // Again: idempotent.
  const uint64_t version = h.desired.at(one + "/" + ImageRowName(image->id))->version;
  EXPECT_EQ(*h.Do([&](Engine& e, Turn& t) { return e.Warm(t, h.admin, "a"); }), *warm);
  EXPECT_EQ(h.desired.at(one + "/" + ImageRowName(image->id))->version, version);
}

TEST(Images, ASilentResolverIsReplaced) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1, w2});
  EXPECT_EQ(h.ImageRow(w2, image->id), nullptr);
  h.Silence(w1);
  h.Advance(absl::Seconds(35));
  EXPECT_NE(h.ImageRow(w2, image->id), nullptr);
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{1, 0, 0, 1}));
}

TEST(Images, RetryableFailuresBackOffUpToFiveMinutes) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1});
  std::vector<int64_t> waits;
  for (int i = 0; i < 8; ++i) {
    const uint32_t attempt = h.ImageRow(w1, image->id)->attempt;
    h.ObserveImage(w1, image->id, CacheStatus::kFailed, [](ImageObservation& seen) {
      seen.error_code = "REGISTRY_UNREACHABLE";
      seen.retryable = true;
    });
    const absl::Time failed_at = h.loop.Now();
    while (h.ImageRow(w1, image->id)->attempt == attempt) h.Advance(absl::Seconds(1));
    waits.push_back(absl::ToInt64Seconds(h.loop.Now() - failed_at));
  }
  EXPECT_EQ(waits, (std::vector<int64_t>{10, 20, 40, 80, 160, 300, 300, 300}));
  h.MakeReady(w1, image->id);
  EXPECT_EQ(h.Entry(image->id, w1)->failures, 0u);
}

TEST(Images, AWorkerThatHasNothingOfAFailedOneBeginsAfresh) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1});
  h.ObserveImage(w1, image->id, CacheStatus::kFailed, [](ImageObservation& seen) {
    seen.stage = "pulling";
    seen.bytes_done = 5;
    seen.error_code = "REGISTRY_UNREACHABLE";
    seen.retryable = true;
  });
  EXPECT_TRUE(h.Entry(image->id, w1)->retry_at.has_value());
  h.Run([&](Engine& e, Turn& t) { e.OnObservationRemoved(t, w1, ImageRowName(image->id)); });
  const RowPtr<CacheEntry> entry = h.Entry(image->id, w1);
  EXPECT_EQ(entry->status, CacheStatus::kPending);
  EXPECT_EQ(entry->error_code, "");
  EXPECT_EQ(entry->stage, "");
  EXPECT_EQ(entry->bytes_done, 0u);
  EXPECT_FALSE(entry->retry_at.has_value());
}

TEST(Images, ALazyOneThatNobodyWaitsForAnyMoreEnds) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("lazy", true);
  std::vector<RowPtr<Bunker>> rows;
  for (int i = 0; i < 8; ++i) rows.push_back(*h.Create("lazy"));
  // One worker resolves the ref; the other one's entry waits without a row.
  ASSERT_NE(h.Entry(image->id, w1), nullptr);
  ASSERT_NE(h.Entry(image->id, w2), nullptr);
  EXPECT_NE(h.Entry(image->id, w1)->assigned, h.Entry(image->id, w2)->assigned);
  for (const RowPtr<Bunker>& row : rows) {
    h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
    h.ObserveBunker(row->worker_id, row->id, BunkerStatus::kStopped);
  }
  h.Advance(absl::Seconds(125));
  EXPECT_EQ(h.Entry(image->id, w1), nullptr);  // evicted ones are not listed
  EXPECT_EQ(h.Entry(image->id, w2), nullptr);
}

TEST(Images, StaleAttemptsAndOtherPeoplesRowsAreIgnored) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1});
  h.ObserveImage(w1, image->id, CacheStatus::kReady,
                 [](ImageObservation& seen) { seen.attempt = 9; });
  EXPECT_EQ(h.Entry(image->id, w1)->status, CacheStatus::kPending);
  // w2 was never asked.
  ImageObservation seen;
  seen.image_id = image->id;
  seen.attempt = 1;
  seen.status = CacheStatus::kReady;
  Harness::Resolve(seen, kDigestB);
  h.Run([&](Engine& e, Turn& t) {
    e.OnObservation(t, w2, {ImageRowName(image->id), 77, seen});
    e.OnObservation(t, "wrk_nobody", {ImageRowName(image->id), 77, seen});
    e.OnObservation(t, w1, {"images/else", 77, seen});
  });
  EXPECT_EQ(h.Entry(image->id, w2), nullptr);
  EXPECT_FALSE((*h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, "a"); }))->resolved);
}

TEST(Images, AnotherDigestIsAMismatch) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  RegisterImageSpec spec;
  spec.name = "t";
  spec.build_source = {SourceKind::kTar, "", "/srv/images/t.tar"};
  spec.size_mib = 64;
  const RowPtr<Image> image =
      *h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, h.admin, spec); });
  h.MakeGroup("g", {"t"}, {w1, w2});
  h.MakeReady(w1, image->id);
  h.ObserveImage(w2, image->id, CacheStatus::kReady,
                 [](ImageObservation& seen) { Harness::Resolve(seen, kDigestB); });
  EXPECT_EQ(h.Entry(image->id, w2)->status, CacheStatus::kFailed);
  EXPECT_EQ(h.Entry(image->id, w2)->error_code, "DIGEST_MISMATCH");
  EXPECT_FALSE(h.Entry(image->id, w2)->retry_at.has_value());
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{0, 1, 1, 0}));
}

TEST(Images, TheOtherArchitectureIsSkippedOnceItIsKnown) {
  Harness h;
  const std::string x86 = h.AddWorker("x86");
  const std::string arm = h.AddWorker("arm", {4000, 8192, 100'000}, Arch::kAarch64);
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {x86, arm});
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{2, 0, 0, 0}));
  const std::string first = h.ImageRow(x86, image->id) != nullptr ? x86 : arm;
  ASSERT_EQ(first, x86);  // by id; the test below needs it
  h.MakeReady(x86, image->id);
  EXPECT_EQ(h.WarmOf(image->id), (WarmSummary{0, 1, 0, 1}));
  EXPECT_EQ(h.ImageRow(arm, image->id), nullptr);
}

TEST(Images, ARestartKeepsVersionsAndNeverReusesThem) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1});
  h.MakeReady(w1, image->id);
  const auto before = h.desired;
  Harness again({}, false, h.store->rows());
  const WorkerSession session = again.Connect(w1);
  ASSERT_EQ(session.desired.size(), 1u);
  EXPECT_EQ(session.desired[0]->version, before.begin()->second->version);
  EXPECT_EQ(session.observations_held.at(ImageRowName(image->id)), h.versions);
  EXPECT_EQ(again.Entry(image->id, w1)->status, CacheStatus::kReady);
  again.Register("b");
  again.Must([&](Engine& e, Turn& t) { return e.AttachImage(t, again.admin, "g", "b"); });
  for (const auto& [key, row] : again.desired) {
    if (before.count(key) == 0) {
      EXPECT_GT(row->version, before.begin()->second->version);
    }
  }
}

TEST(Images, ARejectedRowFailsWithItsReason) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {w1});
  const uint64_t version = h.desired.at(w1 + "/" + ImageRowName(image->id))->version;
  h.Run([&](Engine& e, Turn& t) {
    e.OnRejection(t, w1, ImageRowName(image->id), version - 1, "X", "old");
  });
  EXPECT_EQ(h.Entry(image->id, w1)->status, CacheStatus::kPending);
  h.Run([&](Engine& e, Turn& t) {
    e.OnRejection(t, w1, ImageRowName(image->id), version, "SOURCE_NOT_READABLE", "outside");
  });
  EXPECT_EQ(h.Entry(image->id, w1)->error_code, "SOURCE_NOT_READABLE");
  EXPECT_EQ(h.Entry(image->id, w1)->error_message, "the worker refused: outside");
}

}  // namespace
}  // namespace bunker::controller
