// The control client against a VMM that a guest may have taken over.
#include "agent/vm/qmp_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "agent/vm/unix_socket.h"

namespace bunker::agent {
namespace {

using ::testing::HasSubstr;

constexpr char kGreeting[] = R"({"QMP":{"version":{},"capabilities":[]}})" "\n";
constexpr char kDone[] = R"({"return":{}})" "\n";

// Says `script` to the first client whatever that asks, then waits for it to leave.
class FakeVmm {
 public:
  explicit FakeVmm(std::string script) : script_(std::move(script)) {
    char folder[] = "/tmp/bunker-qmp.XXXXXX";
    folder_ = mkdtemp(folder);
    absl::StatusOr<UniqueFd> listener = ListenUnix(path());
    EXPECT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeVmm() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    unlink(path().c_str());
    rmdir(folder_.c_str());
  }
  std::string path() const { return folder_ + "/s"; }
  absl::StatusOr<QmpClient> Connect(absl::Duration timeout = absl::Seconds(5)) {
    return QmpClient::Connect(path(), Deadline(timeout));
  }

 private:
  void Serve() {
    const UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    for (size_t at = 0; at < script_.size();) {
      const ssize_t sent =
          send(client.get(), script_.data() + at, script_.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) return;
      at += static_cast<size_t>(sent);
    }
    char byte;
    while (read(client.get(), &byte, 1) == 1) {
    }
  }

  std::string script_;
  std::string folder_;
  UniqueFd listener_;
  std::thread thread_;
};

TEST(QmpClientTest, AnswersAndEventsAreToldApart) {
  FakeVmm vmm(absl::StrCat(kGreeting, kDone, R"({"event":"STOP","timestamp":{}})", "\n",
                           R"({"return":{"status":"paused"}})", "\n",
                           R"({"event":"SHUTDOWN","data":{"guest":true}})", "\n"));
  absl::StatusOr<QmpClient> client = vmm.Connect();
  ASSERT_TRUE(client.ok()) << client.status();
  const Deadline deadline(absl::Seconds(5));
  EXPECT_EQ(*client->QueryStatus(deadline), "paused");
  EXPECT_EQ(*client->NextEvent(deadline), "STOP");
  EXPECT_EQ(*client->NextEvent(deadline), R"(SHUTDOWN {"guest":true})");
}

TEST(QmpClientTest, ASilentVmmEndsInTime) {
  FakeVmm vmm("");
  EXPECT_TRUE(absl::IsDeadlineExceeded(vmm.Connect(absl::Milliseconds(50)).status()));
}

TEST(QmpClientTest, ARefusalIsQuotedAndCut) {
  FakeVmm vmm(absl::StrCat(kGreeting, kDone, R"({"error":{"desc":"no )", std::string(9999, 'x'),
                           "\"}}\n"));
  absl::StatusOr<QmpClient> client = vmm.Connect();
  ASSERT_TRUE(client.ok());
  const absl::Status refused = client->QueryStatus(Deadline(absl::Seconds(5))).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(refused.ToString(), HasSubstr("no xxx"));
  EXPECT_LT(refused.message().size(), 1000u);
}

TEST(QmpClientTest, AnEndlessLineIsCutOff) {
  FakeVmm vmm(std::string(8 << 20, 'x'));
  const absl::Status status = vmm.Connect().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.ToString(), HasSubstr("endless line"));
}

TEST(QmpClientTest, OddAnswersAreErrorsAndNoCrash) {
  const std::string deep(500'000, '[');
  const std::string odd[] = {
      "\n", "[]\n", "{}\n", "null\n", "{\"return\":5}\n", "{\"return\":{\"status\":5}}\n",
      "{\"return\":null}\n", "\xff\xfe\n", absl::StrCat("{\"return\":", deep, "\n"),
      absl::StrCat("{\"return\":", deep, std::string(deep.size(), ']'), "}\n"),
  };
  for (const std::string& answer : odd) {
    FakeVmm vmm(absl::StrCat(kGreeting, kDone, answer));
    absl::StatusOr<QmpClient> client = vmm.Connect();
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_FALSE(client->QueryStatus(Deadline(absl::Seconds(5))).ok()) << answer.substr(0, 40);
  }
}

TEST(QmpClientTest, AFloodOfEventsIsBoundedToTheNewest) {
  std::string script = absl::StrCat(kGreeting, kDone);
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&script, R"({"event":"E)", i, "\"}\n");
  absl::StrAppend(&script, R"({"return":{"status":"running"}})", "\n");
  FakeVmm vmm(script);
  absl::StatusOr<QmpClient> client = vmm.Connect();
  ASSERT_TRUE(client.ok());
  const Deadline deadline(absl::Seconds(20));
  EXPECT_EQ(*client->QueryStatus(deadline), "running");
  EXPECT_EQ(*client->NextEvent(deadline), "E4936") << "the oldest of the 64 kept";
}

TEST(QmpClientTest, WhatIsNoVmmIsNotTakenForOne) {
  FakeVmm vmm("{\"hello\":1}\n");
  EXPECT_TRUE(absl::IsUnavailable(vmm.Connect().status()));
}

}  // namespace
}  // namespace bunker::agent
