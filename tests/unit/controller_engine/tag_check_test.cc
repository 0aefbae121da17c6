// A tag that moves is noted, by one worker at a time, and never followed.
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

const std::string kMoved = "sha256:" + std::string(64, 'd');

class TagCheckTest : public testing::Test {
 protected:
  TagCheckTest() : h(Options()) {
    w1 = h.AddWorker("w1");
    w2 = h.AddWorker("w2");
    image = h.Register("a")->id;
    h.MakeGroup("g", {"a"}, {w1, w2});
    h.MakeReady(w1, image);
    h.MakeReady(w2, image);
  }
  static EngineOptions Options() {
    EngineOptions options;
    options.tag_check_period = absl::Minutes(10);
    return options;
  }
  uint64_t Asked(const std::string& worker) { return h.ImageRow(worker, image)->tag_check; }
  uint64_t Asked() { return Asked(w1) + Asked(w2); }
  // What `worker` was asked last.
  void Answer(const std::string& worker, const std::string& digest) {
    const uint64_t serial = Asked(worker);
    h.ObserveImage(worker, image, CacheStatus::kReady, [&](ImageObservation& seen) {
      Harness::Resolve(seen);
      seen.tag_check = serial;
      seen.tag_digest = digest;
    });
  }
  RowPtr<Image> Row() {
    return *h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, image); });
  }
  // The worker that was asked since `before`.
  std::string NextAsked(uint64_t before_w1) { return Asked(w1) > before_w1 ? w1 : w2; }

  Harness h;
  std::string w1, w2, image;
};

TEST_F(TagCheckTest, OneWorkerAPeriod) {
  EXPECT_EQ(Asked(), 0u);
  h.Advance(absl::Minutes(10));
  EXPECT_EQ(Asked(), 1u) << "the first within a period";
  h.Advance(absl::Minutes(100));
  EXPECT_GE(Asked(), 9u);
  EXPECT_LE(Asked(), 13u);
  EXPECT_GT(Asked(w1), 0u) << "not always the same";
  EXPECT_GT(Asked(w2), 0u);
}

TEST_F(TagCheckTest, NotedNotFollowedAndTakenBack) {
  h.Advance(absl::Minutes(10));
  const std::string first = NextAsked(0);
  const uint64_t version = h.desired.at(first + "/" + ImageRowName(image))->version;
  Answer(first, kDigestA);
  EXPECT_FALSE(Row()->tag_moved);
  const uint64_t before = Asked(w1);
  while (Asked() < 2) h.Advance(absl::Minutes(1));
  const std::string second = NextAsked(before);
  Answer(second, kMoved);
  ASSERT_TRUE(Row()->tag_moved);
  EXPECT_EQ(Row()->tag_moved->digest, kMoved);
  const absl::Time seen_at = Row()->tag_moved->seen_at;
  EXPECT_EQ(Row()->resolved->manifest_digest, kDigestA);
  EXPECT_EQ(h.ImageRow(first, image)->manifest_digest, kDigestA);
  (void)version;
  // Told again, by the row's next change, it is no news, and neither is an old answer.
  h.Advance(absl::Minutes(1));
  Answer(second, kDigestA);
  EXPECT_TRUE(Row()->tag_moved) << "the same serial is heard once";
  EXPECT_EQ(Row()->tag_moved->seen_at, seen_at);
  // It moved back.
  const uint64_t again = Asked(w1);
  const uint64_t total = Asked();
  while (Asked() == total) h.Advance(absl::Minutes(1));
  Answer(NextAsked(again), kDigestA);
  EXPECT_FALSE(Row()->tag_moved);
}

TEST_F(TagCheckTest, AnAnswerOfNothingChangesNothing) {
  h.Advance(absl::Minutes(10));
  Answer(NextAsked(0), "");
  EXPECT_FALSE(Row()->tag_moved);
  h.ObserveImage(w1, image, CacheStatus::kReady, [](ImageObservation& seen) {
    Harness::Resolve(seen);
    seen.tag_check = 99;  // never asked
    seen.tag_digest = kMoved;
  });
  EXPECT_FALSE(Row()->tag_moved);
}

TEST_F(TagCheckTest, RetiredImagesAndOfflineWorkersAreLeftAlone) {
  h.Silence(w1);
  h.Advance(absl::Minutes(30));
  EXPECT_EQ(Asked(w1), 0u);
  EXPECT_GT(Asked(w2), 0u);
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, h.admin, "a"); });
  const uint64_t asked = h.ImageRow(w2, image) == nullptr ? 0 : Asked(w2);
  h.Advance(absl::Minutes(60));
  EXPECT_LE(h.ImageRow(w2, image) == nullptr ? 0 : Asked(w2), asked);
}

TEST_F(TagCheckTest, ManyAreSpreadAndBounded) {
  EngineOptions options = Options();
  options.tag_checks_per_tick = 3;
  Harness many(options);
  const std::string worker = many.AddWorker("w");
  std::vector<std::string> ids;
  many.MakeGroup("g", {}, {worker});
  for (int i = 0; i < 40; ++i) {
    ids.push_back(many.Register("i" + std::to_string(i))->id);
    many.Must([&](Engine& e, Turn& t) { return e.AttachImage(t, many.admin, "g", ids.back()); });
    many.MakeReady(worker, ids.back());
  }
  const auto asked = [&] {
    size_t count = 0;
    for (const std::string& id : ids) count += many.ImageRow(worker, id)->tag_check;
    return count;
  };
  size_t before = 0;
  size_t most = 0;
  size_t seconds_with_any = 0;
  for (int second = 0; second < 600; ++second) {
    many.Advance(absl::Seconds(1));
    const size_t now = asked();
    most = std::max(most, now - before);
    if (now > before) ++seconds_with_any;
    before = now;
  }
  EXPECT_EQ(before, 40u) << "each once in the first period";
  EXPECT_LE(most, 3u);
  EXPECT_GE(seconds_with_any, 20u);
}

}  // namespace
}  // namespace bunker::controller
