// Challenges, realms and waiting times: tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/pull/backoff.h"
#include "agent/pull/host_table.h"
#include "agent/pull/registry_auth.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

TEST(ChallengeTest, FindsBearerFirst) {
  const auto challenge = ParseChallenge(
      R"(Negotiate, Basic realm="x, y", bearer realm = "https://a/t?q=\"1\"" , service=reg,)"
      R"(scope="repository:a/b:pull")");
  ASSERT_TRUE(challenge);
  EXPECT_EQ(challenge->scheme, "bearer");
  EXPECT_EQ(challenge->params.at("realm"), "https://a/t?q=\"1\"");
  EXPECT_EQ(challenge->params.at("service"), "reg");
  EXPECT_EQ(challenge->params.at("scope"), "repository:a/b:pull");
}

TEST(ChallengeTest, TakesBasicOtherwise) {
  EXPECT_EQ(ParseChallenge("Digest a=b, BASIC realm=\"x\"")->scheme, "basic");
  EXPECT_EQ(ParseChallenge("Basic")->scheme, "basic");
}

TEST(ChallengeTest, SurvivesNonsense) {
  for (const std::string text : {"", " ", "\t ", "Negotiate ", ",", "\"", "Be\x81\x81 ",
                                 "Negotiate a=\"", "= ,", "Negotiate a=b ,  ", "\x81 \x81 "})
    EXPECT_FALSE(ParseChallenge(text)) << text;
  EXPECT_TRUE(ParseChallenge("Bearer realm=\"unclosed"));
}

RegistryEndpoint EndpointAt(const std::string& host, const std::string& base,
                            std::vector<std::string> token_hosts = {}) {
  return {.host = host,
          .base_url = base,
          .origin = *http::ParseUrl(base),
          .username = "u",
          .password = "p",
          .token_hosts = std::move(token_hosts)};
}

PullConfig ConfigWithMirror() {
  PullConfig config;
  config.mirrors["docker.io"] = "http://10.0.0.9:5000";
  RegistryConfig& registry = config.registries.emplace_back();
  registry.host = "ghcr.io";
  registry.username = "operator";
  registry.password = "theirs";
  RegistryCredential docker_config;
  docker_config.host = "ghcr.io";
  docker_config.identity_token = "identity";
  config.credentials.push_back(docker_config);
  return config;
}

TEST(LoginTest, IsForItsHostAloneAndNeverMixed) {
  const auto table = HostTable::Create(ConfigWithMirror());
  ASSERT_TRUE(table.ok());
  const auto reference = [](const std::string& text) { return *oci::ParseReference(text); };
  const RegistryLogin login{"mine", "ghcr.io", "ada", "secret"};
  const auto endpoint = table->EndpointOf(reference("ghcr.io/team/app:1"), login);
  ASSERT_TRUE(endpoint.ok());
  EXPECT_EQ(endpoint->username, "ada");
  EXPECT_EQ(endpoint->password, "secret");
  EXPECT_EQ(endpoint->identity_token, "");
  EXPECT_EQ(table->EndpointOf(reference("ghcr.io/team/app:1"))->username, "operator");
  for (const char* other : {"ghcr.io:8443/team/app:1", "evil.example/team/app:1", "app:1"}) {
    const auto refused = table->EndpointOf(reference(other), login);
    EXPECT_EQ(ReasonOf(refused.status()), "REGISTRY_AUTH_FAILED") << other;
  }
}

TEST(LoginTest, PassesAMirrorBy) {
  const auto table = HostTable::Create(ConfigWithMirror());
  const auto reference = *oci::ParseReference("docker.io/r-base:4.4");
  EXPECT_EQ(table->EndpointOf(reference)->base_url, "http://10.0.0.9:5000");
  const auto own = table->EndpointOf(reference, {"hub", "docker.io", "ada", "secret"});
  ASSERT_TRUE(own.ok());
  EXPECT_EQ(own->base_url, "https://registry-1.docker.io");
}

TEST(RealmTest, IsBoundToItsRegistry) {
  struct Row {
    std::string host, base, realm;
    bool bound;
  };
  const Row table[] = {
      {"docker.io", "https://registry-1.docker.io", "https://auth.docker.io/token", true},
      {"ghcr.io", "https://ghcr.io", "https://ghcr.io/token", true},
      {"ghcr.io", "https://ghcr.io", "https://ghcr.io:8443/token", true},
      {"registry.gitlab.com", "https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
      {"registry.gitlab.com", "https://registry.gitlab.com", "https://lab.com/x", false},
      {"registry.gitlab.com", "https://registry.gitlab.com", "https://evil.gitlab.com/x", false},
      {"registry.com", "https://registry.com", "https://com/x", false},
      {"ghcr.io", "https://ghcr.io", "https://evil.example/token", false},
      {"ghcr.io", "https://ghcr.io", "https://ghcr.io.evil.example/token", false},
      {"ghcr.io", "https://ghcr.io", "https://auth.docker.io/token", false},
      {"10.0.0.1:5000", "https://10.0.0.1:5000", "https://0.0.1/token", false},
  };
  for (const Row& row : table) {
    EXPECT_EQ(IsRealmBound(EndpointAt(row.host, row.base), *http::ParseUrl(row.realm)), row.bound)
        << row.realm;
  }
  const auto listed = EndpointAt("r.example", "https://r.example", {"sso.example", "t.example:99"});
  EXPECT_TRUE(IsRealmBound(listed, *http::ParseUrl("https://sso.example/t")));
  EXPECT_FALSE(IsRealmBound(listed, *http::ParseUrl("https://sso.example:99/t")));
  EXPECT_TRUE(IsRealmBound(listed, *http::ParseUrl("https://t.example:99/t")));
  EXPECT_FALSE(IsRealmBound(listed, *http::ParseUrl("https://t.example/t")));
}

TEST(RetryAfterTest, TakesEveryForm) {
  const absl::Time now = absl::FromUnixSeconds(784111777);  // Sun, 06 Nov 1994 08:49:37 GMT
  const absl::Duration cap = absl::Seconds(60);
  const std::pair<std::string, std::optional<absl::Duration>> table[] = {
      {"5", absl::Seconds(5)},
      {" 5 ", absl::Seconds(5)},
      {"0", absl::ZeroDuration()},
      {"-5", absl::ZeroDuration()},
      {"61", cap},
      {"99999999999999999999", cap},
      {"Sun, 06 Nov 1994 08:49:47 GMT", absl::Seconds(10)},
      {"Sunday, 06-Nov-94 08:49:47 GMT", absl::Seconds(10)},
      {"Sun Nov  6 08:49:47 1994", absl::Seconds(10)},
      {"Sun, 06 Nov 1994 08:49:27 GMT", absl::ZeroDuration()},
      {"Fri, 31 Dec 2199 23:59:59 GMT", cap},
      {"", std::nullopt},
      {"soon", std::nullopt},
      {"5.5", std::nullopt},
      {"5s", std::nullopt},
      {"-", std::nullopt},
  };
  for (const auto& [text, delay] : table) EXPECT_EQ(ParseRetryAfter(text, now, cap), delay) << text;
}

TEST(BackoffTest, DoublesWithinBounds) {
  for (int i = 0; i < 100; ++i) {
    const absl::Duration whole =
        std::min(absl::Milliseconds(500) * (1 << std::min(i, 16)), absl::Seconds(30));
    const absl::Duration delay = BackoffDelay(absl::Milliseconds(500), i);
    EXPECT_GE(delay, whole / 2);
    EXPECT_LE(delay, whole);
  }
}

}  // namespace
}  // namespace bunker::agent
