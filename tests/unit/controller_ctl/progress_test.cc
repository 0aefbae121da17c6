#include "controller/ctl/progress.h"

#include "gtest/gtest.h"

namespace bunker::ctl {
namespace {

CacheRow Row(const std::string& worker, const std::string& status, const std::string& stage = "") {
  CacheRow row;
  row.worker_id = "wrk_" + worker;
  row.worker_name = worker;
  row.status = status;
  row.stage = stage;
  return row;
}

TEST(ProgressTest, LineShowsStageBytesRateAndEta) {
  CacheRow row = Row("w1", "building", "pulling");
  row.bytes_done = 34 << 20;
  row.bytes_total = 68 << 20;
  row.rate_bytes_per_s = 17 << 20;
  row.eta_s = 2;
  EXPECT_EQ(FormatProgressLine(row, 4),
            "w1    pulling    [############............]  50 %  34.0 MiB of 68.0 MiB  17.0 MiB/s"
            "  ETA 2 s");
}

TEST(ProgressTest, MoreBytesThanTotalStaysAtAHundred) {
  CacheRow row = Row("w1", "building", "baking");
  row.bytes_done = 9;
  row.bytes_total = 3;
  EXPECT_NE(FormatProgressLine(row, 0).find("100 %"), std::string::npos);
}

TEST(ProgressTest, PlainPrintsChangesAtOnceAndBytesAtIntervals) {
  ProgressView view(false);
  const absl::Time start = absl::FromUnixSeconds(1000);
  EXPECT_EQ(view.Update(Row("w1", "pending"), start), "w1  pending\n");
  EXPECT_NE(view.Update(Row("w1", "building", "pulling"), start), "");
  EXPECT_EQ(view.Update(Row("w1", "building", "pulling"), start + absl::Seconds(1)), "");
  EXPECT_NE(view.Update(Row("w1", "building", "pulling"), start + absl::Seconds(2)), "");
  EXPECT_FALSE(view.Settled());
  view.Update(Row("w1", "ready"), start + absl::Seconds(3));
  EXPECT_TRUE(view.Settled());
  EXPECT_FALSE(view.AnyNotReady());
}

TEST(ProgressTest, LiveRedrawsAllRowsInPlace) {
  ProgressView view(true);
  const absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(view.Update(Row("w1", "pending"), now).find("\x1b[1A"), std::string::npos);
  EXPECT_EQ(view.Update(Row("w2", "pending"), now).substr(0, 4), "\x1b[1A");
  EXPECT_EQ(view.Update(Row("w2", "ready"), now).substr(0, 4), "\x1b[2A");
}

TEST(ProgressTest, FailureIsToldWithItsCode) {
  ProgressView view(false);
  CacheRow row = Row("w1", "failed");
  row.error_code = "IMAGE_NOT_FOUND";
  row.error_message = "no such tag";
  EXPECT_FALSE(view.Settled());
  view.Update(row, absl::FromUnixSeconds(1));
  EXPECT_TRUE(view.Settled());
  EXPECT_TRUE(view.AnyNotReady());
  EXPECT_EQ(view.Failures(), "w1: IMAGE_NOT_FOUND: no such tag");
}

// It stays pending until somebody makes room: nobody is to wait for it.
TEST(ProgressTest, WhatIsLeftOutForWantOfRoomIsSettled) {
  ProgressView view(false);
  CacheRow row = Row("w1", "pending");
  row.error_code = "DISK_FULL";
  row.error_message = "the image needs 900 MiB";
  EXPECT_EQ(view.Update(row, absl::FromUnixSeconds(1)),
            "w1  pending    DISK_FULL: the image needs 900 MiB\n");
  EXPECT_TRUE(view.Settled());
  EXPECT_TRUE(view.AnyNotReady());
  EXPECT_EQ(view.Failures(), "w1: DISK_FULL: the image needs 900 MiB");
}

}  // namespace
}  // namespace bunker::ctl
