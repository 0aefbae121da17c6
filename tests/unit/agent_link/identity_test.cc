#include "agent/link/identity.h"

#include <sys/stat.h>

#include <string>

#include "agent/link/backoff.h"
#include "agent/link/channel.h"
#include "agent/link/join.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_link/scripted_controller.h"

namespace bunker::agent {
namespace {

using ::testing::HasSubstr;

TEST(IdentityTest, RoundTripsAndIsPrivate) {
  test::TempDir dir;
  const std::string path = IdentityPath(dir.path());
  ASSERT_TRUE(SaveIdentity(path, {"wrk_1", "w1", "secret", "10.0.0.1:7443"}).ok());
  struct stat info = {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  const auto identity = LoadIdentity(path);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->worker_id, "wrk_1");
  EXPECT_EQ(identity->name, "w1");
  EXPECT_EQ(identity->credential, "secret");
  EXPECT_EQ(identity->controller, "10.0.0.1:7443");
}

TEST(IdentityTest, RefusesWhatIsMissingReadableOrBroken) {
  test::TempDir dir;
  const std::string path = IdentityPath(dir.path());
  EXPECT_TRUE(absl::IsNotFound(LoadIdentity(path).status()));
  ASSERT_TRUE(SaveIdentity(path, {"wrk_1", "w1", "secret", ""}).ok());
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  EXPECT_THAT(std::string(LoadIdentity(path).status().message()), HasSubstr("0600"));
  for (const char* broken : {"", "[]", "{", "{\"worker_id\": 1}",
                             R"({"worker_id":"","name":"","credential":"","controller":""})"}) {
    ASSERT_TRUE(WriteFileDurably(path, broken, 0600).ok());
    EXPECT_THAT(std::string(LoadIdentity(path).status().message()), HasSubstr("join again"))
        << broken;
  }
}

TEST(ChannelTest, PlainTextIsForLoopbackAlone) {
  for (const char* address : {"127.0.0.1:1", "127.9.9.9", "[::1]:7443", "::1", "localhost:1"})
    EXPECT_TRUE(IsLoopback(address)) << address;
  for (const char* address : {"10.0.0.1:1", "0.0.0.0:1", "[fe80::1]:1", "localhost.example:1",
                              "127.0.0.1.example:1", "", ":1"})
    EXPECT_FALSE(IsLoopback(address)) << address;
  EXPECT_TRUE(OpenChannel({"127.0.0.1:1", false, ""}).ok());
  const auto refused = OpenChannel({"controller.example:7443", false, ""});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("tls = true"));
  EXPECT_FALSE(OpenChannel({"127.0.0.1:1", true, "/nowhere/ca.pem"}).ok());
}

TEST(BackoffTest, DoublesWithFullJitterUpToItsLongest) {
  SeededRng rng(1);
  Backoff backoff({});
  absl::Duration longest;
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration ceiling =
        std::min(absl::Milliseconds(100) * (1 << std::min(i, 20)), absl::Seconds(15));
    const absl::Duration delay = backoff.Next(rng);
    EXPECT_GT(delay, absl::ZeroDuration());
    EXPECT_LE(delay, ceiling);
    longest = std::max(longest, delay);
  }
  EXPECT_GT(longest, absl::Seconds(14));
  backoff.Reset();
  EXPECT_LE(backoff.Next(rng), absl::Milliseconds(100));
}

TEST(JoinTest, SavesTheIdentityOnceAndSpendsTheTokenFile) {
  ScriptedController controller;
  test::TempDir dir;
  const LinkEndpoint endpoint{controller.address(), false, ""};
  const std::string token_file = dir.File("token");
  const auto none = LoadOrJoin(endpoint, "w1", dir.File("state"), token_file);
  EXPECT_EQ(ReasonOf(none.status()), "AUTH_TOKEN_MISSING");
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("join-token --worker w1"));
  ASSERT_TRUE(WriteFileDurably(token_file, "good\n", 0600).ok());
  const auto joined = LoadOrJoin(endpoint, "w1", dir.File("state"), token_file);
  ASSERT_TRUE(joined.ok()) << joined.status();
  EXPECT_EQ(joined->credential, "secret");
  EXPECT_FALSE(ReadFile(token_file, 100).ok()) << "the token is spent";
  const auto again = LoadOrJoin(endpoint, "w1", dir.File("state"), token_file);
  ASSERT_TRUE(again.ok()) << again.status();
  const auto twice = JoinAndSave(endpoint, "good", "w1", dir.File("state"), false);
  EXPECT_EQ(ReasonOf(twice.status()), "RESOURCE_IN_USE");
}

TEST(JoinTest, ARefusedTokenLeavesNothing) {
  ScriptedController controller;
  test::TempDir dir;
  const auto refused =
      JoinAndSave({controller.address(), false, ""}, "bad", "w1", dir.File("state"), false);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("no such token"));
  EXPECT_TRUE(absl::IsNotFound(LoadIdentity(IdentityPath(dir.File("state"))).status()));
}

}  // namespace
}  // namespace bunker::agent
