#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/reason.h"
#include "common/sync/sync_receiver.h"
#include "common/sync/sync_sender.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bunker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Frame = SyncFrame<std::string>;
using Row = SyncRow<std::string>;

absl::Status AdmitAll(const Row&) { return absl::OkStatus(); }

// The table of a sender's owner.
class SyncSenderTest : public ::testing::Test {
 protected:
  SyncSender<std::string> Make(SyncLimits limits = {}) {
    return SyncSender<std::string>(
        limits,
        [this](const std::string& name) -> std::optional<Row> {
          const auto it = table_.find(name);
          if (it == table_.end()) return std::nullopt;
          return Row{name, it->second.first, it->second.second};
        },
        [](const std::string& row) { return row.size(); });
  }
  VersionMap Current() const {
    VersionMap versions;
    for (const auto& [name, row] : table_) versions[name] = row.first;
    return versions;
  }
  std::map<std::string, std::pair<uint64_t, std::string>> table_;
};

std::vector<std::string> Names(const Frame& frame) {
  std::vector<std::string> names;
  for (const Row& row : frame.rows) names.push_back(row.name);
  return names;
}

TEST_F(SyncSenderTest, SendsOnlyWhatDiffersAndRemovals) {
  table_ = {{"a", {1, "x"}}, {"b", {2, "y"}}, {"c", {3, "z"}}};
  auto sender = Make();
  sender.OnConnect(1, {{"a", 1}, {"b", 9}, {"gone", 4}}, Current());
  const auto frame = sender.NextFrame();
  ASSERT_TRUE(frame.has_value());
  EXPECT_THAT(Names(*frame), ElementsAre("b", "c"));
  EXPECT_THAT(frame->removed, ElementsAre("gone"));
  EXPECT_TRUE(frame->synced);
}

TEST_F(SyncSenderTest, NothingToTellStillMarksSyncedOnce) {
  auto sender = Make();
  EXPECT_FALSE(sender.NextFrame().has_value()) << "no session";
  sender.OnConnect(1, {}, {});
  const auto frame = sender.NextFrame();
  ASSERT_TRUE(frame.has_value());
  EXPECT_TRUE(frame->synced);
  EXPECT_THAT(frame->rows, IsEmpty());
  EXPECT_TRUE(sender.OnAck(1, 1));
  EXPECT_FALSE(sender.NextFrame().has_value());
  EXPECT_TRUE(sender.idle());
}

TEST_F(SyncSenderTest, TenChangesInFlightAreSentOnceAsTheLatest) {
  auto sender = Make();
  sender.OnConnect(1, {}, {});
  ASSERT_TRUE(sender.NextFrame().has_value());
  for (uint64_t i = 1; i <= 10; ++i) {
    table_["a"] = {i, std::to_string(i)};
    sender.MarkChanged("a");
    EXPECT_FALSE(sender.NextFrame().has_value()) << "one frame in flight";
  }
  ASSERT_TRUE(sender.OnAck(1, 1));
  const auto frame = sender.NextFrame();
  ASSERT_TRUE(frame.has_value());
  ASSERT_THAT(frame->rows, SizeIs(1));
  EXPECT_EQ(frame->rows[0].row, "10");
}

TEST_F(SyncSenderTest, AChangeInFlightOfTheSameRowIsSentAgain) {
  table_["a"] = {1, "old"};
  auto sender = Make();
  sender.OnConnect(1, {}, Current());
  ASSERT_THAT(sender.NextFrame()->rows, SizeIs(1));
  table_["a"] = {2, "new"};
  sender.MarkChanged("a");
  ASSERT_TRUE(sender.OnAck(1, 1));
  const auto frame = sender.NextFrame();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->rows.at(0).version, 2u);
}

TEST_F(SyncSenderTest, FramesAreBoundedInRowsAndBytes) {
  for (int i = 0; i < 10; ++i) table_["r" + std::to_string(i)] = {1, std::string(100, 'x')};
  auto by_rows = Make({.max_rows = 3, .max_bytes = 1 << 20});
  by_rows.OnConnect(1, {}, Current());
  EXPECT_THAT(by_rows.NextFrame()->rows, SizeIs(3));
  auto by_bytes = Make({.max_rows = 100, .max_bytes = 250});
  by_bytes.OnConnect(1, {}, Current());
  EXPECT_THAT(by_bytes.NextFrame()->rows, SizeIs(2));
  auto too_small = Make({.max_rows = 100, .max_bytes = 10});
  too_small.OnConnect(1, {}, Current());
  EXPECT_THAT(too_small.NextFrame()->rows, SizeIs(1)) << "a large row goes alone";
}

TEST_F(SyncSenderTest, SyncedComesHoweverFastOtherRowsChange) {
  for (int i = 0; i < 6; ++i) table_["r" + std::to_string(i)] = {1, ""};
  auto sender = Make({.max_rows = 2, .max_bytes = 1 << 20});
  sender.OnConnect(1, {}, Current());
  uint64_t version = 10;
  for (uint64_t frame_number = 1; frame_number <= 3; ++frame_number) {
    const auto frame = sender.NextFrame();
    ASSERT_TRUE(frame.has_value());
    EXPECT_EQ(frame->synced, frame_number == 3);
    for (const char* name : {"a", "b", "r0"}) {
      table_[name] = {++version, ""};
      sender.MarkChanged(name);
    }
    ASSERT_TRUE(sender.OnAck(1, frame_number));
  }
}

TEST_F(SyncSenderTest, AcksOfAnotherSessionOrFrameAreRefused) {
  auto sender = Make();
  sender.OnConnect(1, {}, {});
  ASSERT_TRUE(sender.NextFrame().has_value());
  EXPECT_FALSE(sender.OnAck(1, 2));
  sender.OnConnect(2, {}, {});
  EXPECT_FALSE(sender.OnAck(2, 1)) << "nothing in flight yet";
  ASSERT_TRUE(sender.NextFrame().has_value());
  EXPECT_FALSE(sender.OnAck(1, 1)) << "an older session's";
  EXPECT_TRUE(sender.OnAck(2, 1));
  EXPECT_FALSE(sender.OnAck(2, 1)) << "twice";
}

TEST(SyncReceiverTest, KeepsRemovalsBackUntilSynced) {
  SyncReceiver<std::string> receiver({{"a", 1}, {"b", 1}});
  receiver.OnConnect(1);
  auto changes = receiver.OnFrame(1, {1, false, {{"c", 3, "z"}}, {"a", "b"}}, AdmitAll);
  ASSERT_TRUE(changes.has_value());
  EXPECT_THAT(changes->removed, IsEmpty());
  EXPECT_THAT(changes->rows, SizeIs(1));
  changes = receiver.OnFrame(1, {2, true, {{"b", 2, "back"}}, {}}, AdmitAll);
  ASSERT_TRUE(changes.has_value());
  EXPECT_TRUE(changes->synced);
  EXPECT_THAT(changes->removed, ElementsAre("a")) << "b came back before";
  EXPECT_THAT(receiver.held(), ElementsAre(std::pair<const std::string, uint64_t>("b", 2),
                                           std::pair<const std::string, uint64_t>("c", 3)));
}

TEST(SyncReceiverTest, IgnoresRepeatedAndForeignFrames) {
  SyncReceiver<std::string> receiver;
  receiver.OnConnect(7);
  EXPECT_FALSE(receiver.OnFrame(6, {1, true, {}, {}}, AdmitAll).has_value());
  EXPECT_FALSE(receiver.OnFrame(7, {2, true, {}, {}}, AdmitAll).has_value()) << "a gap";
  EXPECT_TRUE(receiver.OnFrame(7, {1, true, {}, {}}, AdmitAll).has_value());
  EXPECT_FALSE(receiver.OnFrame(7, {1, true, {}, {}}, AdmitAll).has_value()) << "twice";
}

TEST(SyncReceiverTest, ARejectedRowIsNotHeldAndTheOldOneStays) {
  SyncReceiver<std::string> receiver({{"a", 1}});
  receiver.OnConnect(1);
  const auto changes = receiver.OnFrame(1, {1, true, {{"a", 2, "bad"}}, {}}, [](const Row&) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR", "no");
  });
  ASSERT_TRUE(changes.has_value());
  EXPECT_THAT(changes->rows, IsEmpty());
  ASSERT_THAT(changes->rejections, SizeIs(1));
  EXPECT_EQ(changes->rejections[0].code, "VALIDATION_ERROR");
  EXPECT_EQ(changes->rejections[0].version, 2u);
  EXPECT_EQ(receiver.held().at("a"), 1u);
}

TEST(VersionCounterTest, NeverRepeatsAcrossStarts) {
  VersionCounter first(1);
  VersionCounter second(2);
  uint64_t last = 0;
  for (int i = 0; i < 1000; ++i) last = first.Next();
  EXPECT_GT(second.Next(), last);
}

}  // namespace
}  // namespace bunker
