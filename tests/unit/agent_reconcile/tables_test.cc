// The reconciler's tables against scripted work: no I/O, no threads, no clock.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "agent/reconcile/bunker_table.h"
#include "agent/reconcile/image_table.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

using Observed = link::v1::BunkerObservation;

class RecordingSink : public ObservationSink {
 public:
  void Upsert(const link::v1::Observation& row) override { rows[row.name()] = row; }
  void Remove(const std::string& name) override { rows.erase(name); }
  const link::v1::ImageObservation& Image(const std::string& id) {
    return rows.at("images/" + id).image();
  }
  const link::v1::BunkerObservation& Bunker(const std::string& id) {
    return rows.at("bunkers/" + id).bunker();
  }
  std::map<std::string, link::v1::Observation> rows;
};

class ScriptedImageWork : public ImageWork {
 public:
  struct Job {
    link::v1::ImageAssignment wanted;
    std::shared_ptr<CancelToken> cancel;
    OnProgress progress;
    OnDone done;
  };
  void Ensure(const link::v1::ImageAssignment& wanted, const link::v1::ImageObservation&,
              std::shared_ptr<CancelToken> cancel, OnProgress progress, OnDone done) override {
    jobs.push_back({wanted, std::move(cancel), std::move(progress), std::move(done)});
  }
  void LookUpTag(const link::v1::ImageAssignment& wanted, OnTag on_done) override {
    tags.push_back({wanted.tag_check(), std::move(on_done)});
  }
  void Remember(const link::v1::ImageObservation& ready) override {
    remembered[ready.image_id()] = ready;
  }
  void Forget(const std::string& image_id) override { remembered.erase(image_id); }
  void Evict(const std::string& recipe) override { evicted.push_back(recipe); }

  // Ends the oldest job.
  void Finish(link::v1::ImageObservation::Status status, const std::string& recipe,
              bool retryable = false) {
    Job job = jobs.front();
    jobs.pop_front();
    link::v1::ImageObservation result;
    result.set_image_id(job.wanted.image_id());
    result.set_attempt(job.wanted.attempt());
    result.set_status(status);
    result.set_recipe_digest(recipe);
    result.set_retryable(retryable);
    if (status == link::v1::ImageObservation::FAILED) result.set_error_code("REGISTRY_UNREACHABLE");
    result.mutable_resolved()->set_manifest_digest("sha256:m");
    job.done(result);
  }
  std::deque<Job> jobs;
  std::deque<std::pair<uint64_t, OnTag>> tags;
  void FinishTag(const std::string& digest) {
    const auto [serial, done] = tags.front();
    tags.pop_front();
    link::v1::TagCheck check;
    check.set_serial(serial);
    check.set_digest(digest);
    done(check);
  }
  std::map<std::string, link::v1::ImageObservation> remembered;
  std::vector<std::string> evicted;
};

class ScriptedBunkerWork : public BunkerWork {
 public:
  struct StartCall {
    link::v1::BunkerAssignment wanted;
    std::string recipe;
    std::shared_ptr<CancelToken> cancel;
    OnStarted done;
  };
  void Start(const link::v1::BunkerAssignment& wanted, const std::string& recipe,
             std::shared_ptr<CancelToken> cancel, OnStarted done) override {
    starts.push_back({wanted, recipe, std::move(cancel), std::move(done)});
  }
  void Stop(const std::string& id, uint32_t incarnation, bool keep_disk,
            OnStopped done) override {
    stops.push_back({id + "." + std::to_string(incarnation), std::move(done)});
    kept_disk = keep_disk;
  }
  void SetPaused(const std::string&, uint32_t, bool paused, OnPaused done) override {
    switches.push_back({paused, std::move(done)});
  }
  void CopyDisk(const std::string&, const Copy& wanted, std::shared_ptr<CancelToken>,
                OnCopied done) override {
    copies.push_back({wanted.snapshot_id, std::move(done)});
  }
  void FinishCopy(bool is_vm_as_before = true) {
    auto call = copies.front();
    copies.pop_front();
    call.second({absl::OkStatus(), 7, is_vm_as_before});
  }
  void Later(std::function<void()> again) override { later.push_back(std::move(again)); }
  void FinishSwitch(const absl::Status& status = absl::OkStatus()) {
    auto call = switches.front();
    switches.pop_front();
    call.second(status);
  }
  void Forget(const std::string& id, uint32_t incarnation) override {
    forgotten.push_back(id + "." + std::to_string(incarnation));
  }
  void FinishStart(link::v1::BunkerObservation::Status status) {
    StartCall call = starts.front();
    starts.pop_front();
    link::v1::BunkerObservation result;
    result.set_bunker_id(call.wanted.bunker_id());
    result.set_incarnation(call.wanted.incarnation());
    result.set_status(status);
    call.done(result);
  }
  void FinishStop() {
    auto call = stops.front();
    stops.pop_front();
    call.second();
  }
  std::deque<StartCall> starts;
  std::deque<std::pair<std::string, OnStopped>> stops;
  std::deque<std::pair<bool, OnPaused>> switches;
  std::deque<std::pair<std::string, OnCopied>> copies;
  std::vector<std::function<void()>> later;
  std::vector<std::string> forgotten;
  bool kept_disk = false;  // by the last stop
};

class TablesTest : public ::testing::Test {
 protected:
  link::v1::ImageAssignment Image(uint32_t attempt = 1, const std::string& digest = "") {
    link::v1::ImageAssignment row;
    row.set_image_id("img");
    row.set_attempt(attempt);
    row.set_manifest_digest(digest);
    return row;
  }
  link::v1::BunkerAssignment Bunker(uint32_t incarnation = 1) {
    link::v1::BunkerAssignment row;
    row.set_bunker_id("bnk");
    row.set_image_id("img");
    row.set_incarnation(incarnation);
    row.set_desired(link::v1::BunkerAssignment::RUNNING);
    return row;
  }
  void MakeImageReady() {
    images.Upsert(Image());
    image_work.Finish(link::v1::ImageObservation::READY, "recipe");
  }
  void MakeBunkerRun() {
    MakeImageReady();
    bunkers.Upsert(Bunker());
    bunker_work.FinishStart(link::v1::BunkerObservation::RUNNING);
  }

  RecordingSink sink;
  ScriptedImageWork image_work;
  ScriptedBunkerWork bunker_work;
  ImageTable images{image_work, sink, [this](const std::string& id) { bunkers.OnImageChange(id); }};
  BunkerTable bunkers{bunker_work, images, sink};
};

TEST_F(TablesTest, OneJobPerImageHoweverOftenTheRowComes) {
  images.Upsert(Image());
  images.Upsert(Image());
  images.Upsert(Image(2));
  EXPECT_EQ(image_work.jobs.size(), 1u);
  image_work.Finish(link::v1::ImageObservation::READY, "recipe");
  EXPECT_TRUE(image_work.jobs.empty()) << "the newer attempt is satisfied by the older job";
  EXPECT_EQ(sink.Image("img").status(), link::v1::ImageObservation::READY);
  EXPECT_EQ(images.ReadyRecipe("img"), "recipe");
  EXPECT_EQ(image_work.remembered.count("img"), 1u);
}

TEST_F(TablesTest, ATagIsLookedUpOnceForEachNumber) {
  const auto asking = [this](uint64_t serial) {
    link::v1::ImageAssignment row = Image();
    row.set_tag_check(serial);
    return row;
  };
  images.Upsert(asking(1));
  EXPECT_TRUE(image_work.tags.empty()) << "first the image itself";
  image_work.Finish(link::v1::ImageObservation::READY, "recipe");
  ASSERT_EQ(image_work.tags.size(), 1u);
  images.Upsert(asking(1));
  images.Upsert(asking(3));
  EXPECT_EQ(image_work.tags.size(), 1u) << "one at a time";
  image_work.FinishTag("sha256:one");
  EXPECT_EQ(sink.Image("img").tag_check().serial(), 1u);
  EXPECT_EQ(sink.Image("img").tag_check().digest(), "sha256:one");
  EXPECT_EQ(sink.Image("img").status(), link::v1::ImageObservation::READY);
  ASSERT_EQ(image_work.tags.size(), 1u) << "the last number that came meanwhile";
  EXPECT_EQ(image_work.tags.front().first, 3u);
  image_work.FinishTag("");
  EXPECT_EQ(sink.Image("img").tag_check().serial(), 3u);
  EXPECT_EQ(image_work.remembered["img"].tag_check().serial(), 3u) << "a restart asks no more";
  images.Upsert(asking(3));
  EXPECT_TRUE(image_work.tags.empty());
}

TEST_F(TablesTest, ATagAnswerForARowThatIsGoneIsDropped) {
  link::v1::ImageAssignment row = Image();
  row.set_tag_check(1);
  images.Upsert(row);
  image_work.Finish(link::v1::ImageObservation::READY, "recipe");
  images.Remove("img");
  image_work.FinishTag("sha256:late");
  EXPECT_EQ(image_work.remembered.count("img"), 0u);
}

TEST_F(TablesTest, AFailureWaitsForAHigherAttempt) {
  images.Upsert(Image(1));
  image_work.Finish(link::v1::ImageObservation::FAILED, "");
  images.Upsert(Image(1));
  EXPECT_TRUE(image_work.jobs.empty());
  images.Upsert(Image(2));
  EXPECT_EQ(image_work.jobs.size(), 1u);
}

TEST_F(TablesTest, AnAttemptRaisedDuringTheJobRunsAfterItsFailure) {
  images.Upsert(Image(1));
  images.Upsert(Image(2));
  image_work.Finish(link::v1::ImageObservation::FAILED, "");
  ASSERT_EQ(image_work.jobs.size(), 1u);
  EXPECT_EQ(image_work.jobs.front().wanted.attempt(), 2u);
}

TEST_F(TablesTest, RemovalCancelsAndForgetsAndEvicts) {
  images.Upsert(Image());
  const auto cancel = image_work.jobs.front().cancel;
  images.Remove("img");
  EXPECT_TRUE(cancel->cancelled());
  EXPECT_EQ(sink.rows.count("images/img"), 1u) << "nothing is removed while the job still runs";
  image_work.Finish(link::v1::ImageObservation::READY, "recipe");
  EXPECT_EQ(sink.rows.count("images/img"), 0u);
  EXPECT_EQ(image_work.remembered.size(), 0u);
  EXPECT_THAT(image_work.evicted, ::testing::ElementsAre("recipe"));
}

TEST_F(TablesTest, ASharedRecipeIsEvictedWithItsLastRow) {
  MakeImageReady();
  link::v1::ImageAssignment other = Image();
  other.set_image_id("other");
  images.Upsert(other);
  image_work.Finish(link::v1::ImageObservation::READY, "recipe");
  images.Remove("img");
  EXPECT_TRUE(image_work.evicted.empty());
  images.Remove("other");
  EXPECT_THAT(image_work.evicted, ::testing::ElementsAre("recipe"));
}

TEST_F(TablesTest, ARestoredImageNeedsNoJob) {
  link::v1::ImageObservation ready;
  ready.set_image_id("img");
  ready.set_status(link::v1::ImageObservation::READY);
  ready.set_recipe_digest("recipe");
  ready.mutable_resolved()->set_manifest_digest("sha256:m");
  images.Restore(ready);
  images.Upsert(Image(1, "sha256:m"));
  EXPECT_TRUE(image_work.jobs.empty());
  EXPECT_EQ(sink.Image("img").status(), link::v1::ImageObservation::READY);
}

TEST_F(TablesTest, ABunkerWaitsForItsImage) {
  bunkers.Upsert(Bunker());
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::PROVISIONING);
  EXPECT_TRUE(bunker_work.starts.empty());
  MakeImageReady();
  ASSERT_EQ(bunker_work.starts.size(), 1u);
  EXPECT_EQ(bunker_work.starts.front().recipe, "recipe");
  bunker_work.FinishStart(link::v1::BunkerObservation::RUNNING);
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::RUNNING);
}

TEST_F(TablesTest, ABunkerFailsWithItsImageOnlyWhereNoRetryCanHelp) {
  bunkers.Upsert(Bunker());
  images.Upsert(Image());
  image_work.Finish(link::v1::ImageObservation::FAILED, "", /*retryable=*/true);
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::PROVISIONING);
  images.Upsert(Image(2));
  image_work.Finish(link::v1::ImageObservation::FAILED, "", /*retryable=*/false);
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::FAILED);
}

TEST_F(TablesTest, StoppingEndsTheVmOnceAndIsFinal) {
  MakeBunkerRun();
  link::v1::BunkerAssignment stop = Bunker();
  stop.set_desired(link::v1::BunkerAssignment::STOPPED);
  bunkers.Upsert(stop);
  bunkers.Upsert(stop);
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::STOPPING);
  bunker_work.FinishStop();
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::STOPPED);
  bunkers.Upsert(Bunker());
  EXPECT_TRUE(bunker_work.starts.empty()) << "a stopped incarnation never starts again";
  EXPECT_TRUE(bunker_work.forgotten.empty()) << "its end is remembered while it is wanted";
  bunkers.Upsert(Bunker(2));
  EXPECT_EQ(bunker_work.starts.size(), 1u);
  EXPECT_THAT(bunker_work.forgotten, ::testing::ElementsAre("bnk.1"));
}

TEST_F(TablesTest, RemovalDuringTheStartCancelsItAndLeavesNothing) {
  MakeImageReady();
  bunkers.Upsert(Bunker());
  const auto cancel = bunker_work.starts.front().cancel;
  bunkers.Remove("bnk");
  EXPECT_TRUE(cancel->cancelled());
  bunker_work.FinishStart(link::v1::BunkerObservation::RUNNING);  // it was too late to cancel
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  bunker_work.FinishStop();
  EXPECT_EQ(sink.rows.count("bunkers/bnk"), 0u);
}

TEST_F(TablesTest, AVmThatDiesIsCleanedUpAndKeepsItsReason) {
  MakeBunkerRun();
  bunkers.OnExit("bnk", 7, false, "another incarnation");
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::RUNNING);
  bunkers.OnExit("bnk", 1, false, "the VM was killed");
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::FAILED);
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  bunker_work.FinishStop();
  EXPECT_EQ(sink.Bunker("bnk").status(), link::v1::BunkerObservation::FAILED);
  EXPECT_EQ(sink.Bunker("bnk").status_reason(), "the VM was killed");
}

TEST_F(TablesTest, ANewerIncarnationReplacesTheRunningOne) {
  MakeBunkerRun();
  bunkers.Upsert(Bunker(2));
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  EXPECT_TRUE(bunker_work.starts.empty()) << "never two VMs of one bunker";
  bunker_work.FinishStop();
  ASSERT_EQ(bunker_work.starts.size(), 1u);
  EXPECT_EQ(bunker_work.starts.front().wanted.incarnation(), 2u);
}

TEST_F(TablesTest, AKeptDiskOutlivesItsVmAndGoesWithItsRow) {
  MakeImageReady();
  link::v1::BunkerAssignment wanted = Bunker();
  wanted.set_keep_disk(true);
  bunkers.Upsert(wanted);
  bunker_work.FinishStart(Observed::RUNNING);
  wanted.set_desired(link::v1::BunkerAssignment::STOPPED);
  bunkers.Upsert(wanted);
  EXPECT_TRUE(bunker_work.kept_disk);
  bunker_work.FinishStop();
  EXPECT_EQ(sink.Bunker("bnk").status(), Observed::STOPPED);
  EXPECT_TRUE(sink.Bunker("bnk").disk_kept());

  wanted.set_incarnation(2);
  wanted.set_desired(link::v1::BunkerAssignment::RUNNING);
  bunkers.Upsert(wanted);
  ASSERT_EQ(bunker_work.starts.size(), 1u);
  bunker_work.FinishStart(Observed::FAILED);
  EXPECT_TRUE(sink.Bunker("bnk").disk_kept());

  // The end for good: the same status, without the disk.
  wanted.set_keep_disk(false);
  wanted.set_desired(link::v1::BunkerAssignment::STOPPED);
  bunkers.Upsert(wanted);
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  EXPECT_FALSE(bunker_work.kept_disk);
  EXPECT_TRUE(sink.Bunker("bnk").disk_kept());
  bunker_work.FinishStop();
  EXPECT_FALSE(sink.Bunker("bnk").disk_kept());
  bunkers.Remove("bnk");
  EXPECT_TRUE(bunker_work.stops.empty());
  EXPECT_EQ(sink.rows.count("bunkers/bnk"), 0u);
}

TEST_F(TablesTest, ARowThatGoesTakesItsDiskAlong) {
  MakeImageReady();
  link::v1::BunkerAssignment wanted = Bunker();
  wanted.set_keep_disk(true);
  wanted.set_desired(link::v1::BunkerAssignment::STOPPED);
  bunkers.Upsert(wanted);
  EXPECT_TRUE(sink.Bunker("bnk").disk_kept());
  bunkers.Remove("bnk");
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  EXPECT_FALSE(bunker_work.kept_disk);
  bunker_work.FinishStop();
  EXPECT_EQ(sink.rows.count("bunkers/bnk"), 0u);
}

TEST_F(TablesTest, PauseAndResume) {
  MakeImageReady();
  link::v1::BunkerAssignment wanted = Bunker();
  bunkers.Upsert(wanted);
  bunker_work.FinishStart(Observed::RUNNING);
  wanted.set_desired(link::v1::BunkerAssignment::PAUSED);
  bunkers.Upsert(wanted);
  ASSERT_EQ(bunker_work.switches.size(), 1u);
  EXPECT_TRUE(bunker_work.switches[0].first);
  // What changes meanwhile is done after it.
  wanted.set_desired(link::v1::BunkerAssignment::RUNNING);
  bunkers.Upsert(wanted);
  EXPECT_EQ(bunker_work.switches.size(), 1u);
  bunker_work.FinishSwitch();
  EXPECT_EQ(sink.Bunker("bnk").status(), Observed::PAUSED);
  ASSERT_EQ(bunker_work.switches.size(), 1u);
  EXPECT_FALSE(bunker_work.switches[0].first);
  bunker_work.FinishSwitch(absl::UnavailableError("the VMM does not answer"));
  EXPECT_EQ(sink.Bunker("bnk").status(), Observed::PAUSED);
  ASSERT_EQ(bunker_work.later.size(), 1u);
  bunker_work.later[0]();
  bunker_work.FinishSwitch();
  EXPECT_EQ(sink.Bunker("bnk").status(), Observed::RUNNING);
}

TEST_F(TablesTest, AVmThatDiesWhileItIsPausedIsCleanedUp) {
  MakeImageReady();
  link::v1::BunkerAssignment wanted = Bunker();
  bunkers.Upsert(wanted);
  bunker_work.FinishStart(Observed::RUNNING);
  wanted.set_desired(link::v1::BunkerAssignment::PAUSED);
  bunkers.Upsert(wanted);
  bunkers.OnExit("bnk", 1, false, "VM_ENDED: killed");
  EXPECT_TRUE(bunker_work.stops.empty());
  bunker_work.FinishSwitch(absl::UnavailableError("gone"));
  ASSERT_EQ(bunker_work.stops.size(), 1u);
  EXPECT_EQ(sink.Bunker("bnk").status(), Observed::FAILED);
  bunker_work.FinishStop();
}

TEST_F(TablesTest, AnAdoptedVmIsPausedAgainForItsRowMayBeAheadOfIt) {
  MakeImageReady();
  link::v1::BunkerAssignment wanted = Bunker();
  wanted.set_desired(link::v1::BunkerAssignment::PAUSED);
  link::v1::BunkerObservation observed;
  observed.set_bunker_id("bnk");
  observed.set_incarnation(1);
  observed.set_status(Observed::PAUSED);
  bunkers.Restore(wanted, observed, "recipe");
  bunkers.Upsert(wanted);
  ASSERT_EQ(bunker_work.switches.size(), 1u);
  EXPECT_TRUE(bunker_work.switches[0].first);
  bunker_work.FinishSwitch();
  EXPECT_TRUE(bunker_work.switches.empty());
}

TEST_F(TablesTest, OnlyWhatNoGroupWantsMayBeDropped) {
  MakeImageReady();
  EXPECT_TRUE(images.Expendable().empty());
  link::v1::ImageAssignment loose = Image();
  loose.set_expendable(true);
  images.Upsert(loose);
  EXPECT_TRUE(image_work.jobs.empty());  // the flag alone makes nothing again
  ASSERT_EQ(images.Expendable().size(), 1u);
  images.DropFile("img");
  EXPECT_EQ(sink.Image("img").status(), link::v1::ImageObservation::EVICTED);
  EXPECT_THAT(image_work.evicted, ::testing::ElementsAre("recipe"));
  EXPECT_TRUE(image_work.remembered.empty());
  EXPECT_EQ(images.ReadyRecipe("img"), "");
  // It is not made again by itself; a raised attempt, or that a group wants it, makes it.
  images.Upsert(loose);
  EXPECT_TRUE(image_work.jobs.empty());
  loose.set_attempt(2);
  images.Upsert(loose);
  EXPECT_EQ(image_work.jobs.size(), 1u);
}

TEST_F(TablesTest, AUsedImageIsKnownToBe) {
  MakeBunkerRun();
  EXPECT_TRUE(bunkers.Uses("recipe"));
  EXPECT_FALSE(bunkers.Uses("other"));
  EXPECT_GT(sink.Image("img").last_used_unix_ms(), 0);
  bunkers.Remove("bnk");
  EXPECT_TRUE(bunkers.Uses("recipe"));  // until the VM has ended
  bunker_work.FinishStop();
  EXPECT_FALSE(bunkers.Uses("recipe"));
}

// ---- copies of disks --------------------------------------------------------------------------

class CopyTest : public TablesTest {
 protected:
  link::v1::BunkerAssignment Kept(link::v1::BunkerAssignment::Desired desired) {
    link::v1::BunkerAssignment row = Bunker();
    row.set_keep_disk(true);
    row.set_desired(desired);
    return row;
  }
  void Copy(const std::string& snapshot) {
    bunkers.CopyDisk("bnk", {snapshot}, std::make_shared<CancelToken>(),
                     [this, snapshot](const BunkerWork::Copied& copied) {
                       told.push_back(snapshot + " " + ReasonOf(copied.status) +
                                      std::to_string(copied.size_bytes));
                     });
  }
  std::vector<std::string> told;
};

TEST_F(CopyTest, NothingElseBeginsWhileADiskIsCopied) {
  MakeBunkerRun();
  Copy("s1");
  Copy("s2");
  ASSERT_EQ(bunker_work.copies.size(), 1u) << "one at a time";
  link::v1::BunkerAssignment paused = Bunker();
  paused.set_desired(link::v1::BunkerAssignment::PAUSED);
  bunkers.Upsert(paused);
  EXPECT_TRUE(bunker_work.switches.empty());
  EXPECT_TRUE(bunkers.Uses("recipe"));
  bunkers.OnActivity("bnk", 1, 3, 5);
  EXPECT_EQ(sink.Bunker("bnk").active_execs(), 3u) << "it is up all the while";
  bunker_work.FinishCopy();
  bunker_work.FinishCopy();
  EXPECT_THAT(told, ::testing::ElementsAre("s1 7", "s2 7"));
  EXPECT_EQ(bunker_work.switches.size(), 1u);
}

TEST_F(CopyTest, ACopyThatWasAskedForComesBeforeTheEnd) {
  MakeBunkerRun();
  Copy("s1");
  link::v1::BunkerAssignment stop = Bunker();
  stop.set_desired(link::v1::BunkerAssignment::STOPPED);
  bunkers.Upsert(stop);
  EXPECT_TRUE(bunker_work.stops.empty());
  bunker_work.FinishCopy();
  EXPECT_EQ(bunker_work.stops.size(), 1u);
}

TEST_F(CopyTest, WhatIsStartingIsWaitedFor) {
  MakeImageReady();
  bunkers.Upsert(Bunker());
  Copy("s1");
  EXPECT_TRUE(bunker_work.copies.empty());
  bunker_work.FinishStart(link::v1::BunkerObservation::RUNNING);
  EXPECT_EQ(bunker_work.copies.size(), 1u);
}

TEST_F(CopyTest, OfAStoppedBunkerTheDiskThatWasKeptIsCopied) {
  MakeImageReady();
  bunkers.Upsert(Kept(link::v1::BunkerAssignment::RUNNING));
  bunker_work.FinishStart(link::v1::BunkerObservation::RUNNING);
  bunkers.Upsert(Kept(link::v1::BunkerAssignment::STOPPED));
  Copy("s1");
  EXPECT_TRUE(bunker_work.copies.empty()) << "not while it ends";
  bunker_work.FinishStop();
  ASSERT_EQ(bunker_work.copies.size(), 1u);
  bunkers.Remove("bnk");
  EXPECT_TRUE(bunker_work.stops.empty()) << "its disk is being read";
  bunker_work.FinishCopy();
  EXPECT_EQ(bunker_work.stops.size(), 1u);
  bunker_work.FinishStop();
  EXPECT_EQ(sink.rows.count("bunkers/bnk"), 0u);
}

TEST_F(CopyTest, WithoutADiskThereIsNothingToCopy) {
  Copy("unknown");
  MakeBunkerRun();
  bunkers.OnExit("bnk", 1, false, "killed");
  Copy("late");
  bunker_work.FinishStop();
  EXPECT_TRUE(bunker_work.copies.empty());
  EXPECT_THAT(told, ::testing::ElementsAre("unknown BUNKER_NOT_RUNNING0",
                                           "late BUNKER_NOT_RUNNING0"));
}

TEST_F(CopyTest, AVmThatEndsMeanwhileIsCleanedUpAfterwards) {
  MakeBunkerRun();
  Copy("s1");
  bunkers.OnExit("bnk", 1, false, "killed");
  EXPECT_TRUE(bunker_work.stops.empty());
  bunker_work.FinishCopy(false);
  EXPECT_EQ(sink.Bunker("bnk").status(), Observed::FAILED);
  EXPECT_EQ(sink.Bunker("bnk").status_reason(), "killed");
  EXPECT_EQ(bunker_work.stops.size(), 1u);
}

TEST_F(CopyTest, AVmThatMayHaveStayedPausedIsLetGoOn) {
  MakeBunkerRun();
  Copy("s1");
  bunker_work.FinishCopy(false);
  ASSERT_EQ(bunker_work.switches.size(), 1u);
  EXPECT_FALSE(bunker_work.switches.front().first);
  Copy("s2");
  EXPECT_TRUE(bunker_work.copies.empty()) << "first it has to be known how it is";
  bunker_work.FinishSwitch();
  EXPECT_EQ(bunker_work.copies.size(), 1u);
}

}  // namespace
}  // namespace bunker::agent
