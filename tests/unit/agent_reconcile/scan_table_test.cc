// The table of scans against scripted work.
#include "agent/reconcile/scan_table.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

namespace bunker::agent {
namespace {

struct ScriptedScanWork : ScanWork {
  struct Job {
    link::v1::ScanAssignment wanted;
    std::string recipe;
    std::shared_ptr<CancelToken> cancel;
    OnDone done;
  };
  void Scan(const link::v1::ScanAssignment& wanted, const std::string& recipe,
            std::shared_ptr<CancelToken> cancel, OnDone done) override {
    jobs.push_back({wanted, recipe, std::move(cancel), std::move(done)});
  }
  void Finish(const std::string& error = "") {
    const Job job = jobs.front();
    jobs.pop_front();
    link::v1::ScanObservation result;
    result.set_image_id(job.wanted.image_id());
    result.set_generation(job.wanted.generation());
    result.set_recipe_digest(job.recipe);
    result.set_error_message(error);
    if (error.empty()) result.set_output_zstd("x");
    job.done(result);
  }
  std::deque<Job> jobs;
};

struct RecordedScans : ObservationSink {
  void Upsert(const link::v1::Observation& row) override { rows[row.name()] = row; }
  void Remove(const std::string& name) override { rows.erase(name); }
  std::map<std::string, link::v1::Observation> rows;
};

class ScanTableTest : public ::testing::Test {
 protected:
  void Want(uint64_t generation) {
    link::v1::ScanAssignment wanted;
    wanted.set_image_id("img_1");
    wanted.set_generation(generation);
    table_.Upsert(wanted);
  }

  ScriptedScanWork work_;
  RecordedScans sink_;
  std::string recipe_ = "r";
  std::vector<std::string> let_go_;
  ScanTable table_{work_,
                   sink_,
                   {[this](const std::string&) { return recipe_; },
                    [this](const std::string& recipe) { let_go_.push_back(recipe); }}};
};

TEST_F(ScanTableTest, ScansOnceAGenerationAndTellsUntilTheRowGoes) {
  Want(1);
  ASSERT_EQ(work_.jobs.size(), 1u);
  EXPECT_TRUE(sink_.rows.empty());
  work_.Finish();
  EXPECT_EQ(sink_.rows.at("scans/img_1").scan().generation(), 1u);
  EXPECT_EQ(let_go_, std::vector<std::string>{"r"});
  Want(1);
  EXPECT_TRUE(work_.jobs.empty());
  Want(2);
  ASSERT_EQ(work_.jobs.size(), 1u);
  work_.Finish("no scanner");
  EXPECT_EQ(sink_.rows.at("scans/img_1").scan().error_message(), "no scanner");
  table_.Remove("img_1");
  EXPECT_TRUE(sink_.rows.empty());
}

TEST_F(ScanTableTest, WaitsForTheImage) {
  recipe_.clear();
  Want(1);
  EXPECT_TRUE(work_.jobs.empty());
  recipe_ = "r";
  table_.OnImageChange("img_1");
  EXPECT_EQ(work_.jobs.size(), 1u);
  table_.OnImageChange("img_2");
  EXPECT_EQ(work_.jobs.size(), 1u);
}

TEST_F(ScanTableTest, CancelsWhatIsNotWantedAnyMore) {
  Want(1);
  table_.Remove("img_1");
  EXPECT_FALSE(work_.jobs.front().cancel->Check().ok());
  work_.Finish("cancelled");
  EXPECT_TRUE(sink_.rows.empty());
  Want(3);
  EXPECT_EQ(work_.jobs.size(), 1u);
}

TEST_F(ScanTableTest, ANewGenerationWhileOneRunsComesBehindIt) {
  Want(1);
  Want(2);
  ASSERT_EQ(work_.jobs.size(), 1u);
  work_.Finish();
  ASSERT_EQ(work_.jobs.size(), 1u);
  EXPECT_EQ(work_.jobs.front().wanted.generation(), 2u);
}

}  // namespace
}  // namespace bunker::agent
