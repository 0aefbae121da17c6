#include "absl/strings/escaping.h"
#include "controller/engine/scans.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

EngineOptions Scanning() {
  EngineOptions options;
  options.scan.period = absl::Minutes(2);
  return options;
}

const ScanAssignment* ScanRow(Harness& h, const std::string& worker, const std::string& image) {
  const auto it = h.desired.find(worker + "/" + ScanRowName(image));
  return it == h.desired.end() ? nullptr : &std::get<ScanAssignment>(it->second->row);
}

void Answer(Harness& h, const std::string& worker, const std::string& image,
            const std::string& output, const std::string& error = "") {
  const ScanAssignment* row = ScanRow(h, worker, image);
  ASSERT_NE(row, nullptr);
  const ScanObservation seen{image, row->generation, output, error};
  h.Run([&](Engine& e, Turn& t) {
    e.OnObservation(t, worker, {ScanRowName(image), ++h.versions, seen});
  });
}

void Matched(Harness& h, const std::string& image, const ScanMatch& match) {
  h.Run([&](Engine& e, Turn& t) {
    const uint64_t generation = e.scans().ReportOf(image)->generation;
    e.scans().OnMatched(t, image, generation, match, false, "document");
  });
}

RowPtr<Image> ImageOf(Harness& h, const std::string& image) {
  return *h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, image); });
}

ScanPhase PhaseOf(Harness& h, const std::string& image) {
  return h.Do([&](Engine& e, Turn&) { return e.scans().ReportOf(image)->phase; });
}

TEST(Scans, RunOnAWorkerThatHoldsTheImage) {
  Harness h(Scanning());
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w2"});
  h.MakeReady(w2, image->id);
  EXPECT_EQ(ScanRow(h, w2, image->id), nullptr);
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  EXPECT_EQ(ScanRow(h, w1, image->id), nullptr);
  ASSERT_NE(ScanRow(h, w2, image->id), nullptr);
  Answer(h, w2, image->id, "inventory");
  EXPECT_EQ(ScanRow(h, w2, image->id), nullptr);
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kMatching);
  EXPECT_EQ(h.store->rows().at({Noun::kScanDocument, image->id}), absl::Base64Escape("inventory"));
  ScanMatch match;
  match.packages = 3;
  match.counts = {{"low", 2}};
  Matched(h, image->id, match);
  const RowPtr<Image> row = ImageOf(h, image->id);
  EXPECT_EQ(row->scan_status, ScanStatus::kPassed);
  EXPECT_EQ(row->scan_summary, "2 low in 3 packages");
  EXPECT_EQ(row->scanned_at, h.loop.Now());
  EXPECT_EQ(h.store->rows().at({Noun::kScanDocument, image->id}), "document");
  // It is not due again before it is old.
  h.Advance(absl::Minutes(10));
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kIdle);
}

TEST(Scans, HaveAnImageMadeThatNobodyHolds) {
  Harness h(Scanning());
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  EXPECT_EQ(h.ImageRow(w1, image->id), nullptr);
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  ASSERT_NE(h.ImageRow(w1, image->id), nullptr);
  h.MakeReady(w1, image->id);
  h.Advance(absl::Seconds(2));
  Answer(h, w1, image->id, "inventory");
  Matched(h, image->id, {});
  ASSERT_NE(h.ImageRow(w1, image->id), nullptr);
  h.Advance(absl::Minutes(3));
  EXPECT_EQ(h.ImageRow(w1, image->id), nullptr);  // swept
}

TEST(Scans, EndInFailedWithTheReason) {
  Harness h(Scanning());
  const RowPtr<Image> image = h.Register("a");
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  EXPECT_EQ(ImageOf(h, image->id)->scan_status, ScanStatus::kFailed);
  EXPECT_NE(ImageOf(h, image->id)->scan_summary.find("no worker"), std::string::npos);

  const std::string w1 = h.AddWorker("w1");
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  h.ObserveImage(w1, image->id, CacheStatus::kFailed, [](ImageObservation& seen) {
    seen.error_code = "REGISTRY_AUTH_FAILED";
    seen.error_message = "wrong password";
  });
  h.Advance(absl::Seconds(2));
  EXPECT_NE(ImageOf(h, image->id)->scan_summary.find("REGISTRY_AUTH_FAILED: wrong password"),
            std::string::npos);
}

TEST(Scans, OfASilentWorkerTimeOutOrGoElsewhere) {
  EngineOptions options = Scanning();
  options.scan.deadline = absl::Minutes(5);
  Harness h(options);
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1", "w2"});
  h.MakeReady(w1, image->id);
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  ASSERT_NE(ScanRow(h, w1, image->id), nullptr);
  h.MakeReady(w2, image->id);
  h.Silence(w1);
  h.Advance(absl::Seconds(40));
  EXPECT_EQ(ScanRow(h, w1, image->id), nullptr);
  ASSERT_NE(ScanRow(h, w2, image->id), nullptr);
  h.Advance(absl::Minutes(5));
  EXPECT_NE(ImageOf(h, image->id)->scan_summary.find("did not answer"), std::string::npos);
}

TEST(Scans, AreQueuedOnDemandAndBehindOneThatRuns) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1"});
  h.MakeReady(w1, image->id);
  h.Advance(absl::Minutes(5));
  EXPECT_EQ(ScanRow(h, w1, image->id), nullptr);  // the period is infinite
  const auto ask = [&] {
    h.Must([&](Engine& e, Turn& t) { return e.scans().Request(t, h.admin, "a"); });
    h.Advance(absl::Seconds(1));
  };
  ask();
  ASSERT_NE(ScanRow(h, w1, image->id), nullptr);
  const uint64_t first = ScanRow(h, w1, image->id)->generation;
  ask();
  EXPECT_EQ(ScanRow(h, w1, image->id)->generation, first);
  Answer(h, w1, image->id, "", "no scanner");
  EXPECT_EQ(ImageOf(h, image->id)->scan_status, ScanStatus::kPending);  // the other one comes
  EXPECT_EQ(ImageOf(h, image->id)->scan_summary, "the scan failed: no scanner");
  h.Advance(absl::Seconds(1));
  ASSERT_NE(ScanRow(h, w1, image->id), nullptr);
  EXPECT_GT(ScanRow(h, w1, image->id)->generation, first);
}

TEST(Scans, OfFilesAreSkipped) {
  Harness h(Scanning());
  RegisterImageSpec spec;
  spec.name = "file";
  spec.build_source.kind = SourceKind::kTar;
  spec.build_source.path = "/srv/x.tar";
  spec.size_mib = 16;
  h.Must([&](Engine& e, Turn& t) { return e.RegisterImage(t, h.admin, spec); });
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  EXPECT_EQ(ImageOf(h, "file")->scan_status, ScanStatus::kSkipped);
}

TEST(Scans, AreMatchedAgainWhenAdvisoriesChange) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1"});
  h.MakeReady(w1, image->id);
  h.Must([&](Engine& e, Turn& t) { return e.scans().Request(t, h.admin, "a"); });
  h.Advance(absl::Seconds(1));
  Answer(h, w1, image->id, "inventory");
  ScanMatch match;
  match.advisories_digest = "one";
  Matched(h, image->id, match);
  h.Run([](Engine& e, Turn& t) { e.scans().OnAdvisories(t, "one"); });
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kIdle);
  h.Run([](Engine& e, Turn& t) { e.scans().OnAdvisories(t, "two"); });
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kMatching);
  // The answer for the older ones comes too late.
  h.Run([&](Engine& e, Turn& t) {
    const uint64_t generation = e.scans().ReportOf(image->id)->generation;
    e.scans().OnMatched(t, image->id, generation - 1, match, false, "old");
  });
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kMatching);
}

TEST(Scans, GateBunkersWhereTheOperatorSaysSo) {
  for (const ScanGate gate : {ScanGate::kOff, ScanGate::kFailed, ScanGate::kUnscanned}) {
    EngineOptions options;
    options.scan.gate = gate;
    Harness h(options);
    const std::string w1 = h.AddWorker("w1");
    const RowPtr<Image> image = h.Register("a");
    h.MakeGroup("g", {"a"}, {"w1"});
    h.MakeReady(w1, image->id);
    EXPECT_EQ(h.Create("a").ok(), gate != ScanGate::kUnscanned);
    h.Must([&](Engine& e, Turn& t) { return e.scans().Request(t, h.admin, "a"); });
    h.Advance(absl::Seconds(1));
    Answer(h, w1, image->id, "inventory");
    ScanMatch match;
    match.counts = {{"unknown", 1}};
    Matched(h, image->id, match);
    const auto refused = h.Create("a");
    EXPECT_EQ(refused.ok(), gate == ScanGate::kOff);
    if (!refused.ok()) {
      EXPECT_EQ(ReasonOf(refused.status()), "IMAGE_SCAN_FAILED");
    }
  }
}

TEST(Scans, GoOnAfterARestart) {
  Harness h(Scanning());
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1"});
  h.MakeReady(w1, image->id);
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  ASSERT_NE(ScanRow(h, w1, image->id), nullptr);
  const uint64_t generation = ScanRow(h, w1, image->id)->generation;

  Harness again(Scanning(), false, h.store->rows(), h.loop.Now());
  again.Connect(w1);
  ASSERT_NE(ScanRow(again, w1, image->id), nullptr);
  EXPECT_EQ(ScanRow(again, w1, image->id)->generation, generation);
  Answer(again, w1, image->id, "inventory");
  EXPECT_EQ(again.Do([&](Engine& e, Turn&) { return e.scans().Matching(); }),
            std::vector<std::string>{image->id});
}

TEST(Scans, LeaveNothingBehindWhereTheDiskIsFull) {
  Harness h(Scanning());
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = h.Register("a");
  h.MakeGroup("g", {"a"}, {"w1"});
  h.MakeReady(w1, image->id);
  h.Advance(absl::Minutes(2) + absl::Seconds(1));
  h.store->SetFull(true);
  Answer(h, w1, image->id, "inventory");
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kScanning);
  EXPECT_EQ(h.store->rows().count({Noun::kScanDocument, image->id}), 0u);
  h.store->SetFull(false);
  Answer(h, w1, image->id, "inventory");
  EXPECT_EQ(PhaseOf(h, image->id), ScanPhase::kMatching);
}

}  // namespace
}  // namespace bunker::controller
