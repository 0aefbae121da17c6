// Operations on files, from the channel's host side: against a guest that does not keep the rules,
// and against the real server and its children without a VM.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/exec/guest_channel.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "tests/unit/agent_exec/fake_guest.h"
#include "tests/unit/agent_exec/real_server.h"

namespace bunker::agent {
namespace {

using guest::v1::FileEnd;
using guest::v1::FileHead;
using guest::v1::FileStart;
using testing::HasSubstr;

struct Seen {
  std::promise<FileHead> head;
  std::promise<absl::StatusOr<FileEnd>> ended;
  std::string data;
};

FileCallbacks Watch(const std::shared_ptr<Seen>& seen) {
  FileCallbacks callbacks;
  callbacks.on_head = [seen](const FileHead& head) { seen->head.set_value(head); };
  callbacks.on_data = [seen](std::string_view data) { seen->data.append(data); };
  callbacks.on_end = [seen](const FileEnd& end) { seen->ended.set_value(end); };
  callbacks.on_error = [seen](const absl::Status& why) { seen->ended.set_value(why); };
  return callbacks;
}

absl::StatusOr<FileEnd> EndOf(Seen& seen) {
  auto ended = seen.ended.get_future();
  if (ended.wait_for(std::chrono::seconds(20)) != std::future_status::ready)
    return absl::InternalError("the caller was never told");
  return ended.get();
}

FileStart StartOf(FileStart::Op op, const std::string& path) {
  FileStart start;
  start.set_op(op);
  start.set_path(path);
  start.set_allow_root(true);
  start.set_user(std::to_string(getuid()) + ":" + std::to_string(getgid()));
  start.set_limit(200);
  return start;
}

// ---- a guest that lies --------------------------------------------------------------------------

absl::Status EndAfter(const std::function<void(FakeGuest&, uint32_t)>& misbehave) {
  FakeGuest fake([&](FakeGuest& guest) {
    guest.ShakeHands();
    misbehave(guest, guest.AwaitExec());
    guest.DrainToEnd();
  });
  GuestChannel channel({"test", [&] { return fake.Connect(); }});
  if (absl::Status ready = channel.WaitReady(absl::Seconds(10)); !ready.ok()) return ready;
  const auto seen = std::make_shared<Seen>();
  auto handle = channel.StartFile(StartOf(FileStart::READ, "/f"), Watch(seen));
  if (!handle.ok()) return handle.status();
  return EndOf(*seen).status();
}

TEST(HostileFiles, EveryBreachEndsTheConnectionWithATypedError) {
  const std::string head = FileHead().SerializeAsString();
  guest::v1::Credit credit;
  credit.set_bytes(1);
  const std::string one = credit.SerializeAsString();
  const std::vector<std::function<void(FakeGuest&, uint32_t)>> breaches = {
      [&](FakeGuest& guest, uint32_t stream) { guest.Send(stream, FrameType::kFileData, "early"); },
      [&](FakeGuest& guest, uint32_t stream) {
        guest.Send(stream, FrameType::kFileHead, head);
        guest.Send(stream, FrameType::kFileHead, head);
      },
      [&](FakeGuest& guest, uint32_t stream) {
        guest.Send(stream, FrameType::kFileHead, head);
        for (int i = 0; i < 9; ++i)
          guest.Send(stream, FrameType::kFileData, std::string(32 * 1024, 'x'));
      },
      [&](FakeGuest& guest, uint32_t stream) {
        guest.Send(stream, FrameType::kFileHead, head);
        guest.Send(stream, FrameType::kFileData, std::string(32 * 1024 + 1, 'x'));
      },
      [&](FakeGuest& guest, uint32_t stream) { guest.Send(stream, FrameType::kFileCredit, one); },
      [&](FakeGuest& guest, uint32_t stream) { guest.Send(stream + 1, FrameType::kFileEnd, ""); },
      [&](FakeGuest& guest, uint32_t stream) { guest.Send(stream, FrameType::kFileStart, ""); },
      [&](FakeGuest& guest, uint32_t stream) { guest.Send(stream, FrameType::kStdout, "x"); },
      [&](FakeGuest& guest, uint32_t stream) {
        guest.Send(stream, FrameType::kFileEnd, "\xff\xff\xff");
      }};
  for (const auto& breach : breaches) {
    const absl::Status status = EndAfter(breach);
    EXPECT_EQ(ReasonOf(status), "UNAVAILABLE") << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("broke the channel's rules"));
  }
}

TEST(HostileFiles, AMessageIsCleanText) {
  const absl::Status status = EndAfter([](FakeGuest& guest, uint32_t stream) {
    FileEnd end;
    end.set_kind(FileEnd::NOT_FOUND);
    end.set_message("\x1b[31m\xff\n" + std::string(5000, 'x'));
    guest.Send(stream, FrameType::kFileEnd, end.SerializeAsString());
  });
  EXPECT_EQ(ReasonOf(status), "PATH_NOT_FOUND");
  EXPECT_LT(status.message().size(), 1000u);
  EXPECT_EQ(std::string(status.message()).find('\x1b'), std::string::npos);
  EXPECT_EQ(std::string(status.message()).find('\xff'), std::string::npos);
}

// ---- the real server ----------------------------------------------------------------------------

class FileTest : public testing::Test {
 protected:
  FileTest() : channel_({"test", [this] { return server_.Connect(); }}) {
    char name[] = "/tmp/bunker-files-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~FileTest() override { std::filesystem::remove_all(folder_); }
  void SetUp() override { ASSERT_TRUE(channel_.WaitReady(absl::Seconds(10)).ok()); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  absl::StatusOr<FileEnd> Run(const FileStart& start, std::string* data = nullptr) {
    const auto seen = std::make_shared<Seen>();
    auto handle = channel_.StartFile(start, Watch(seen));
    if (!handle.ok()) return handle.status();
    auto end = EndOf(*seen);
    if (data != nullptr) *data = seen->data;
    return end;
  }

  // Starts a write and waits until its data is welcome.
  std::unique_ptr<FileHandle> BeginWrite(const std::string& path,
                                         const std::shared_ptr<Seen>& seen) {
    auto handle = channel_.StartFile(StartOf(FileStart::WRITE, path), Watch(seen));
    EXPECT_TRUE(handle.ok()) << handle.status();
    auto head = seen->head.get_future();
    EXPECT_EQ(head.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    return *std::move(handle);
  }
  static std::string Content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  size_t Entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  // Until the children have cleaned up.
  bool WaitForEntries(size_t count) const {
    for (int i = 0; i < 2000 && Entries() != count; ++i) usleep(5000);
    return Entries() == count;
  }

  RealServer server_;
  GuestChannel channel_;
  std::string folder_;
};

TEST_F(FileTest, AWriteAppearsWholeAtItsCommit) {
  const auto seen = std::make_shared<Seen>();
  const auto handle = BeginWrite(Path("file"), seen);
  EXPECT_EQ(handle->TryWrite("hello "), 6u);
  EXPECT_EQ(handle->TryWrite("there"), 5u);
  EXPECT_FALSE(std::filesystem::exists(Path("file")));
  handle->Commit(11);
  const auto end = EndOf(*seen);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->row().size(), 11u);
  EXPECT_EQ(Content(Path("file")), "hello there");
  EXPECT_EQ(Entries(), 1u);
  std::string data;
  ASSERT_TRUE(Run(StartOf(FileStart::READ, Path("file")), &data).ok());
  EXPECT_EQ(data, "hello there");
}

TEST_F(FileTest, WhatIsNotCommittedLeavesNothing) {
  {
    const auto seen = std::make_shared<Seen>();
    const auto handle = BeginWrite(Path("file"), seen);
    handle->TryWrite("half");
  }
  EXPECT_TRUE(WaitForEntries(0));
  const auto seen = std::make_shared<Seen>();
  const auto handle = BeginWrite(Path("file"), seen);
  handle->TryWrite("half");
  handle->Commit(5);
  EXPECT_EQ(ReasonOf(EndOf(*seen).status()), "VALIDATION_ERROR");
  EXPECT_TRUE(WaitForEntries(0));
}

TEST_F(FileTest, ZerosBecomeHoles) {
  const auto seen = std::make_shared<Seen>();
  const auto handle = BeginWrite(Path("sparse"), seen);
  const std::string zeros(200'000, '\0');
  EXPECT_EQ(handle->TryWrite(zeros), zeros.size());
  handle->Commit(zeros.size());
  ASSERT_TRUE(EndOf(*seen).ok());
  struct stat facts{};
  ASSERT_EQ(stat(Path("sparse").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_size, 200'000);
  EXPECT_LT(facts.st_blocks * 512, 16'384);
  EXPECT_EQ(Content(Path("sparse")), zeros);
}

TEST_F(FileTest, HolesDoNotDependOnHowTheZerosAreCut) {
  const auto seen = std::make_shared<Seen>();
  const auto handle = BeginWrite(Path("sparse"), seen);
  std::string content = "begin" + std::string(200'000, '\0') + "end" + std::string(3, '\0');
  for (size_t at = 0; at < content.size(); at += 1009) {
    const std::string_view piece = std::string_view(content).substr(at, 1009);
    ASSERT_EQ(handle->TryWrite(piece), piece.size());
  }
  handle->Commit(content.size());
  ASSERT_TRUE(EndOf(*seen).ok());
  struct stat facts{};
  ASSERT_EQ(stat(Path("sparse").c_str(), &facts), 0);
  EXPECT_LT(facts.st_blocks * 512, 16'384);
  EXPECT_EQ(Content(Path("sparse")), content);
}

TEST_F(FileTest, ErrorsHaveTheirReasons) {
  mkdir(Path("folder").c_str(), 0755);
  std::ofstream(Path("folder/file")) << "x";
  const auto reason = [&](FileStart::Op op, const std::string& path, const std::string& to = "") {
    FileStart start = StartOf(op, path);
    start.set_to(to);
    return ReasonOf(Run(start).status());
  };
  EXPECT_EQ(reason(FileStart::READ, Path("none")), "PATH_NOT_FOUND");
  EXPECT_EQ(reason(FileStart::STAT, Path("none")), "PATH_NOT_FOUND");
  EXPECT_EQ(reason(FileStart::WRITE, Path("none/file")), "PATH_NOT_FOUND");
  EXPECT_EQ(reason(FileStart::WRITE, Path("folder")), "VALIDATION_ERROR");
  EXPECT_EQ(reason(FileStart::WRITE, "/dev/null"), "VALIDATION_ERROR");
  EXPECT_EQ(reason(FileStart::READ, "/dev/null"), "VALIDATION_ERROR");
  EXPECT_EQ(reason(FileStart::READ, "relative"), "VALIDATION_ERROR");
  EXPECT_EQ(reason(FileStart::READ, std::string("/a\0b", 4)), "VALIDATION_ERROR");
  EXPECT_EQ(reason(FileStart::REMOVE, Path("folder")), "RESOURCE_IN_USE");
  EXPECT_EQ(reason(FileStart::REMOVE, "/"), "VALIDATION_ERROR");
  EXPECT_EQ(reason(FileStart::MAKE_FOLDER, Path("folder")), "RESOURCE_IN_USE");
  EXPECT_EQ(reason(FileStart::MOVE, Path("folder/file"), Path("folder")), "RESOURCE_IN_USE");
  EXPECT_EQ(reason(FileStart::PACK, Path("folder/file")), "VALIDATION_ERROR");
}

TEST_F(FileTest, RootIsRefusedWhereItIsNotAllowed) {
  FileStart start = StartOf(FileStart::STAT, "/");
  start.set_user("0");
  start.set_allow_root(false);
  EXPECT_EQ(ReasonOf(Run(start).status()), "AUTHZ_PERMISSION_DENIED");
}

// "CREATED a" for each.
std::vector<std::string> EventsOf(std::string_view data) {
  std::vector<std::string> events;
  while (data.size() >= 4) {
    uint32_t size = 0;
    std::memcpy(&size, data.data(), sizeof(size));
    guest::v1::FileEvent event;
    EXPECT_TRUE(event.ParseFromString(std::string(data.substr(4, size))));
    events.push_back(guest::v1::FileEvent::Kind_Name(event.kind()) + " " + event.name());
    data.remove_prefix(std::min<size_t>(data.size(), 4 + size_t{size}));
  }
  return events;
}

TEST_F(FileTest, AWatchTellsWhatChangesUntilItsFolderIsGone) {
  const std::string folder = Path("watched");
  ASSERT_EQ(mkdir(folder.c_str(), 0755), 0);
  const auto seen = std::make_shared<Seen>();
  const auto handle = channel_.StartFile(StartOf(FileStart::WATCH, folder), Watch(seen));
  ASSERT_TRUE(handle.ok()) << handle.status();
  auto head = seen->head.get_future();
  ASSERT_EQ(head.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  std::ofstream(folder + "/a") << "x";
  std::filesystem::rename(folder + "/a", folder + "/b");
  std::filesystem::remove(folder + "/b");
  std::filesystem::remove(folder);
  const auto end = EndOf(*seen);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_THAT(EventsOf(seen->data),
              testing::ElementsAre("CREATED a", "MODIFIED a", "MOVED_FROM a", "MOVED_TO b",
                                   "REMOVED b", "ENDED "));
}

TEST_F(FileTest, WatchesLeaveRoomForOthers) {
  std::vector<std::unique_ptr<FileHandle>> watches;
  for (int i = 0; i < 16; ++i) {
    const auto seen = std::make_shared<Seen>();
    auto handle = channel_.StartFile(StartOf(FileStart::WATCH, folder_), Watch(seen));
    ASSERT_TRUE(handle.ok()) << handle.status();
    watches.push_back(*std::move(handle));
    ASSERT_EQ(seen->head.get_future().wait_for(std::chrono::seconds(20)),
              std::future_status::ready);
  }
  EXPECT_EQ(ReasonOf(Run(StartOf(FileStart::WATCH, folder_)).status()), "RATE_LIMITED");
  EXPECT_TRUE(Run(StartOf(FileStart::STAT, folder_)).ok());
  EXPECT_EQ(ReasonOf(Run(StartOf(FileStart::WATCH, Path("none"))).status()), "RATE_LIMITED");
  watches.clear();
  // Their children end by themselves.
  absl::StatusOr<FileEnd> again = absl::UnknownError("not asked");
  for (int i = 0; i < 2000; ++i) {
    again = Run(StartOf(FileStart::WATCH, Path("none")));
    if (ReasonOf(again.status()) != "RATE_LIMITED") break;
    usleep(5000);
  }
  EXPECT_EQ(ReasonOf(again.status()), "PATH_NOT_FOUND") << again.status();
}

TEST_F(FileTest, AFolderTravelsAsTar) {
  std::filesystem::create_directories(Path("from/a/b"));
  std::ofstream(Path("from/a/b/file")) << std::string(100'000, 'f');
  std::filesystem::create_symlink("a/b/file", Path("from/link"));
  const auto packed = std::make_shared<Seen>();
  FileCallbacks callbacks = Watch(packed);
  std::shared_ptr<FileHandle> reader;
  std::promise<void> have_reader;
  callbacks.on_data = [&, ready = have_reader.get_future().share()](std::string_view data) {
    ready.wait();
    packed->data.append(data);
    reader->AckData(data.size());
  };
  auto started = channel_.StartFile(StartOf(FileStart::PACK, Path("from")), std::move(callbacks));
  ASSERT_TRUE(started.ok());
  reader = *std::move(started);
  have_reader.set_value();
  ASSERT_TRUE(EndOf(*packed).ok());
  ASSERT_EQ(packed->data.size() % 512, 0u);

  const auto seen = std::make_shared<Seen>();
  auto handle = channel_.StartFile(StartOf(FileStart::UNPACK, Path("to")), Watch(seen));
  ASSERT_TRUE(handle.ok());
  ASSERT_EQ((*handle)->TryWrite(packed->data), packed->data.size());
  (*handle)->Commit(packed->data.size());
  const auto end = EndOf(*seen);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->entries(), 4u);
  EXPECT_EQ(Content(Path("to/link")), std::string(100'000, 'f'));
}

}  // namespace
}  // namespace bunker::agent
