// Rows of snapshots between the engine's structs and the link's messages.
#include <gtest/gtest.h>

#include "controller/link/link_codec.h"

namespace bunker::controller {
namespace {

TEST(SnapshotCodecTest, WhatAWorkerIsToHave) {
  const DesiredRow row{"wrk", SnapshotRowName("snap"), 7, SnapshotAssignment{"snap", "bnk"}};
  link::v1::Assignment sent = ToProto(row);
  EXPECT_EQ(sent.name(), "snapshots/snap");
  EXPECT_EQ(sent.version(), 7u);
  EXPECT_EQ(sent.snapshot().snapshot_id(), "snap");
  EXPECT_EQ(sent.snapshot().bunker_id(), "bnk");
  EXPECT_EQ(sent.snapshot().desired(), link::v1::SnapshotAssignment::TAKEN);
  EXPECT_FALSE(sent.snapshot().expected());
  sent = ToProto({"wrk", SnapshotRowName("snap"), 8, SnapshotAssignment{"snap", "", true, true}});
  EXPECT_EQ(sent.snapshot().desired(), link::v1::SnapshotAssignment::GONE);
  EXPECT_TRUE(sent.snapshot().expected());
  BunkerAssignment copy;
  copy.bunker_id = "bnk";
  copy.snapshot_id = "snap";
  EXPECT_EQ(ToProto({"wrk", BunkerRowName("bnk"), 1, copy}).bunker().snapshot_id(), "snap");
}

TEST(SnapshotCodecTest, WhatAWorkerSays) {
  link::v1::Observation told;
  told.set_name("snapshots/snap");
  told.mutable_snapshot()->set_snapshot_id("snap");
  EXPECT_FALSE(FromProto(told).ok()) << "it has no status";
  told.mutable_snapshot()->set_status(link::v1::SnapshotObservation::FAILED);
  told.mutable_snapshot()->set_size_bytes(9);
  told.mutable_snapshot()->set_error_code(std::string(1000, 'C'));
  told.mutable_snapshot()->set_error_message(std::string(10'000, 'm'));
  const auto row = FromProto(told);
  ASSERT_TRUE(row.ok()) << row.status();
  const auto& seen = std::get<SnapshotObservation>(row->row);
  EXPECT_EQ(seen.snapshot_id, "snap");
  EXPECT_EQ(seen.status, SnapshotObservation::Status::kFailed);
  EXPECT_EQ(seen.size_bytes, 9u);
  EXPECT_EQ(seen.error_code.size(), 256u) << "bounded";
  EXPECT_EQ(seen.error_message.size(), 2048u);
  told.mutable_snapshot()->set_snapshot_id("other");
  EXPECT_FALSE(FromProto(told).ok()) << "it is named otherwise";
}

}  // namespace
}  // namespace bunker::controller
