// The table of snapshots against scripted work.
#include "agent/reconcile/snapshot_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

namespace bunker::agent {
namespace {

using Wanted = link::v1::SnapshotAssignment;
using Observed = link::v1::SnapshotObservation;

class Sink : public ObservationSink {
 public:
  void Upsert(const link::v1::Observation& row) override {
    rows[row.name()] = row.snapshot();
    ++told;
  }
  void Remove(const std::string& name) override { rows.erase(name); }
  std::map<std::string, Observed> rows;
  int told = 0;
};

class Work : public SnapshotWork {
 public:
  void Take(const Wanted& wanted, std::shared_ptr<CancelToken> cancel, OnTaken done) override {
    takes.push_back({wanted.bunker_id(), std::move(cancel), std::move(done)});
  }
  void Remove(const std::string& id, OnRemoved done) override {
    removes.push_back({id, std::move(done)});
  }
  void FinishTake(Observed::Status status, const std::string& code = "") {
    auto call = takes.front();
    takes.pop_front();
    Observed result;
    result.set_status(status);
    result.set_size_bytes(status == Observed::READY ? 9 : 0);
    result.set_error_code(code);
    call.done(result);
  }
  void FinishRemove() {
    auto call = removes.front();
    removes.pop_front();
    call.second();
  }
  struct Call {
    std::string bunker;
    std::shared_ptr<CancelToken> cancel;
    OnTaken done;
  };
  std::deque<Call> takes;
  std::deque<std::pair<std::string, OnRemoved>> removes;
};

class SnapshotTableTest : public ::testing::Test {
 protected:
  Wanted Row(Wanted::Desired desired = Wanted::TAKEN, bool expected = false) {
    Wanted row;
    row.set_snapshot_id("snap");
    row.set_bunker_id("bnk");
    row.set_desired(desired);
    row.set_expected(expected);
    return row;
  }
  const Observed& Told() { return sink.rows.at("snapshots/snap"); }

  Sink sink;
  Work work;
  SnapshotTable table{work, sink};
};

TEST_F(SnapshotTableTest, IsTakenOnce) {
  table.Upsert(Row());
  table.Upsert(Row());
  ASSERT_EQ(work.takes.size(), 1u);
  EXPECT_EQ(work.takes.front().bunker, "bnk");
  EXPECT_TRUE(sink.rows.empty()) << "one under way is not told of";
  work.FinishTake(Observed::READY);
  EXPECT_EQ(Told().status(), Observed::READY);
  EXPECT_EQ(Told().size_bytes(), 9u);
  table.Upsert(Row(Wanted::TAKEN, true));
  EXPECT_TRUE(work.takes.empty());
}

TEST_F(SnapshotTableTest, AFailureIsFinal) {
  table.Upsert(Row());
  work.FinishTake(Observed::FAILED, "DISK_FULL");
  table.Upsert(Row());
  EXPECT_TRUE(work.takes.empty());
  EXPECT_EQ(Told().status(), Observed::FAILED);
  EXPECT_EQ(Told().error_code(), "DISK_FULL");
  table.Remove("snap");
  EXPECT_TRUE(sink.rows.empty());
  EXPECT_TRUE(work.removes.empty()) << "there is nothing to remove";
}

TEST_F(SnapshotTableTest, GoneIsToldOnceTheFileIs) {
  table.Upsert(Row());
  work.FinishTake(Observed::READY);
  table.Upsert(Row(Wanted::GONE));
  ASSERT_EQ(work.removes.size(), 1u);
  EXPECT_EQ(Told().status(), Observed::READY) << "it still is";
  work.FinishRemove();
  EXPECT_EQ(Told().status(), Observed::GONE);
  EXPECT_EQ(Told().size_bytes(), 0u);
  const int told = sink.told;
  table.Upsert(Row(Wanted::GONE));
  EXPECT_EQ(sink.told, told + 1) << "who asks again is told again";
  table.Remove("snap");
  EXPECT_TRUE(sink.rows.empty());
}

TEST_F(SnapshotTableTest, WhatIsBeingTakenIsGivenUp) {
  table.Upsert(Row());
  const auto cancel = work.takes.front().cancel;
  table.Upsert(Row(Wanted::GONE));
  EXPECT_TRUE(cancel->cancelled());
  EXPECT_TRUE(sink.rows.empty());
  work.FinishTake(Observed::FAILED, "CANCELLED");
  EXPECT_EQ(Told().status(), Observed::GONE);
}

TEST_F(SnapshotTableTest, OneTakenTooLateToBeGivenUpIsRemoved) {
  table.Upsert(Row());
  table.Remove("snap");
  work.FinishTake(Observed::READY);
  ASSERT_EQ(work.removes.size(), 1u);
  EXPECT_TRUE(sink.rows.empty());
  work.FinishRemove();
  EXPECT_TRUE(sink.rows.empty());
  table.Upsert(Row());
  EXPECT_EQ(work.takes.size(), 1u) << "nothing is remembered of it";
}

TEST_F(SnapshotTableTest, WhatAnEarlierAgentMadeIsThere) {
  table.Restore("snap", 11);
  table.Upsert(Row());
  EXPECT_TRUE(work.takes.empty());
  EXPECT_EQ(Told().status(), Observed::READY);
  EXPECT_EQ(Told().size_bytes(), 11u);
}

TEST_F(SnapshotTableTest, WhatWasHalfMadeIsMadeAgainAndWhatWasReadyIsNot) {
  table.Upsert(Row());
  EXPECT_EQ(work.takes.size(), 1u);
  table.Upsert(Row(Wanted::TAKEN, true));
  Wanted other = Row(Wanted::TAKEN, true);
  other.set_snapshot_id("lost");
  table.Upsert(other);
  EXPECT_EQ(work.takes.size(), 1u) << "another copy would hold something else";
  EXPECT_EQ(sink.rows.at("snapshots/lost").status(), Observed::FAILED);
  EXPECT_EQ(sink.rows.at("snapshots/lost").error_code(), "SNAPSHOT_LOST");
}

}  // namespace
}  // namespace bunker::agent
