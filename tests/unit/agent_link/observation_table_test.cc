#include "agent/link/observation_table.h"

#include "gtest/gtest.h"

namespace bunker::agent {
namespace {

using link::v1::ImageObservation;
using link::v1::Observation;
using Told = ObservationTable::Told;

Observation Building(uint64_t bytes_done, const std::string& stage = "pulling") {
  Observation row;
  row.set_name("images/img_1");
  row.mutable_image()->set_image_id("img_1");
  row.mutable_image()->set_status(ImageObservation::BUILDING);
  row.mutable_image()->set_stage(stage);
  row.mutable_image()->set_bytes_done(bytes_done);
  return row;
}

TEST(ObservationTableTest, ProgressWaitsAndTheLatestIsTold) {
  ObservationTable table(1);
  EXPECT_EQ(table.Upsert(Building(1)), Told::kNow);
  const uint64_t first = table.Find("images/img_1")->version;
  for (uint64_t bytes = 2; bytes <= 10; ++bytes)
    EXPECT_EQ(table.Upsert(Building(bytes)), Told::kLater);
  EXPECT_EQ(table.Find("images/img_1")->version, first);
  EXPECT_TRUE(table.Cooled("images/img_1"));
  EXPECT_EQ(table.Find("images/img_1")->row.image().bytes_done(), 10u);
  EXPECT_GT(table.Find("images/img_1")->version, first);
  EXPECT_FALSE(table.Cooled("images/img_1")) << "nothing new since";
  EXPECT_EQ(table.Upsert(Building(11)), Told::kNow) << "it had cooled";
}

TEST(ObservationTableTest, AnotherStageOrStatusIsToldAtOnce) {
  ObservationTable table(1);
  EXPECT_EQ(table.Upsert(Building(1)), Told::kNow);
  EXPECT_EQ(table.Upsert(Building(2)), Told::kLater);
  EXPECT_EQ(table.Upsert(Building(3, "baking")), Told::kNow);
  EXPECT_EQ(table.Upsert(Building(4, "baking")), Told::kLater);
  Observation failed = Building(4, "baking");
  failed.mutable_image()->set_status(ImageObservation::FAILED);
  EXPECT_EQ(table.Upsert(failed), Told::kNow);
  EXPECT_FALSE(table.Cooled("images/img_1")) << "the progress that waited is out of date";
  EXPECT_EQ(table.Find("images/img_1")->row.image().status(), ImageObservation::FAILED);
}

TEST(ObservationTableTest, TheSameIsNotToldTwice) {
  ObservationTable table(1);
  EXPECT_EQ(table.Upsert(Building(1)), Told::kNow);
  Observation same = Building(1);
  same.set_version(99);
  EXPECT_EQ(table.Upsert(same), Told::kNothing);
}

TEST(ObservationTableTest, BackToWhatWasToldCancelsWhatWaits) {
  ObservationTable table(1);
  EXPECT_EQ(table.Upsert(Building(1)), Told::kNow);
  EXPECT_EQ(table.Upsert(Building(2)), Told::kLater);
  EXPECT_EQ(table.Upsert(Building(1)), Told::kNothing);
  EXPECT_FALSE(table.Cooled("images/img_1"));
}

TEST(ObservationTableTest, RemovedRowsAreGoneAndComeBackWithANewVersion) {
  ObservationTable table(7);
  table.Upsert(Building(1));
  const uint64_t first = table.Find("images/img_1")->version;
  EXPECT_TRUE(table.Remove("images/img_1"));
  EXPECT_FALSE(table.Remove("images/img_1"));
  EXPECT_FALSE(table.Cooled("images/img_1"));
  EXPECT_TRUE(table.Versions().empty());
  EXPECT_EQ(table.Upsert(Building(1)), Told::kNow);
  EXPECT_NE(table.Find("images/img_1")->version, first);
}

}  // namespace
}  // namespace bunker::agent
