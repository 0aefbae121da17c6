// A guest's bytes as a watch's events: however they are cut, at the reader's pace, and where they
// are no events.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bunker/link/v1/agent_link.pb.h"
#include "bunker/v1/file.pb.h"
#include "controller/api/file_events.h"
#include "controller/api/raw_body.h"

namespace bunker::controller {
namespace {

using testing::ElementsAre;
using Told = link::v1::FileEvent;

class Reader final : public StreamSink {
 public:
  void Listen(std::function<void()>, std::function<void()>) override {}
  void Begin() override { begun = true; }
  bool CanSend() override { return room > 0; }
  void Send(const google::protobuf::Message& message) override {
    const auto& event = static_cast<const v1::FileEvent&>(message);
    --room;
    told.push_back(v1::FileEventKind_Name(event.kind()).substr(16) + " " + event.name());
  }
  void Heartbeat() override { ++heartbeats; }
  void End(const absl::Status&) override {}

  int room = 1000;
  int heartbeats = 0;
  bool begun = false;
  std::vector<std::string> told;
};

std::string RecordOf(Told::Kind kind, const std::string& name) {
  Told event;
  event.set_kind(kind);
  event.set_name(name);
  const std::string bytes = event.SerializeAsString();
  return std::string{static_cast<char>(bytes.size()), 0, 0, 0} + bytes;
}

class FileEventsTest : public testing::Test {
 protected:
  FileEventsTest() : sink_(MakeFileEventSink(reader_)), body_(dynamic_cast<RawBody*>(sink_.get())) {
    body_->BeginBytes("", std::nullopt);
  }
  const std::shared_ptr<Reader> reader_ = std::make_shared<Reader>();
  const std::shared_ptr<StreamSink> sink_;
  RawBody* const body_;
};

TEST_F(FileEventsTest, HoweverTheBytesAreCut) {
  EXPECT_TRUE(reader_->begun);
  const std::string bytes = RecordOf(Told::CREATED, "a") + RecordOf(Told::MOVED_TO, "\xff") +
                            RecordOf(static_cast<Told::Kind>(77), "new") +
                            RecordOf(Told::ENDED, "");
  for (const char byte : bytes) {
    EXPECT_TRUE(body_->CanTakeBytes());
    body_->WriteBytes(std::string(1, byte));
  }
  EXPECT_THAT(reader_->told, ElementsAre("CREATED a", "MOVED_TO \xEF\xBF\xBD", "LOST new",
                                         "ENDED "));
}

TEST_F(FileEventsTest, AReaderWithoutRoomIsWaitedFor) {
  reader_->room = 2;
  std::string bytes;
  for (int i = 0; i < 5; ++i) bytes += RecordOf(Told::CREATED, std::to_string(i));
  body_->WriteBytes(bytes);
  EXPECT_FALSE(body_->CanTakeBytes());
  EXPECT_EQ(reader_->told.size(), 2u);
  body_->KeepAwake();
  EXPECT_EQ(reader_->heartbeats, 0);
  reader_->room = 10;
  EXPECT_TRUE(body_->CanTakeBytes());
  body_->KeepAwake();
  EXPECT_EQ(reader_->heartbeats, 1);
  EXPECT_THAT(reader_->told, ElementsAre("CREATED 0", "CREATED 1", "CREATED 2", "CREATED 3",
                                         "CREATED 4"));
}

TEST_F(FileEventsTest, WhatIsNoRecordIsTheLastToBeTold) {
  body_->WriteBytes(RecordOf(Told::CREATED, "a") + "\xff\xff\xff\x7f" + std::string(8192, 'x'));
  EXPECT_THAT(reader_->told, ElementsAre("CREATED a", "LOST "));
  body_->WriteBytes(RecordOf(Told::CREATED, "b"));
  EXPECT_TRUE(body_->CanTakeBytes());
  EXPECT_EQ(reader_->told.size(), 2u);
}

}  // namespace
}  // namespace bunker::controller
