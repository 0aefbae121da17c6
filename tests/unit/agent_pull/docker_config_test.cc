// Docker's config.json: what is read of it, and what is refused.
#include "agent/pull/docker_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "agent/pull/host_table.h"

namespace bunker::agent {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

std::string ErrorOf(const std::string& text) {
  const auto read = ParseDockerConfig(text, "config.json");
  return read.ok() ? "" : std::string(read.status().message());
}

std::string Entry(const std::string& key, const std::string& auth) {
  return R"({"auths":{")" + key + R"(":{"auth":")" + absl::Base64Escape(auth) + R"("}}})";
}

TEST(DockerConfigTest, ReadsKeysInEveryForm) {
  struct Row {
    std::string key, host, prefix;
  };
  const Row table[] = {
      {"https://index.docker.io/v1/", "docker.io", ""},
      {"docker.io", "docker.io", ""},
      {"registry-1.docker.io", "docker.io", ""},
      {"Registry.Example", "registry.example", ""},
      {"https://r.example", "r.example", ""},
      {"http://r.example:5000/v2/", "r.example:5000", ""},
      {"https://r.example/some/path", "r.example", ""},
      {"r.example/v1/", "r.example", ""},
      {"r.example:5000/team", "r.example:5000", "team"},
      {"[::1]:5000/a/b/", "[::1]:5000", "a/b"},
      {"docker.io/library/debian", "docker.io", "library/debian"},
  };
  for (const Row& row : table) {
    const auto read = ParseDockerConfig(Entry(row.key, "ada:pw"), "config.json");
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->size(), 1u);
    EXPECT_EQ(read->front().host, row.host) << row.key;
    EXPECT_EQ(read->front().repository_prefix, row.prefix) << row.key;
  }
}

TEST(DockerConfigTest, ReadsCredentialsInEveryForm) {
  auto read = *ParseDockerConfig(Entry("r.example", std::string("ada:a:b \0\0", 10)), "c");
  EXPECT_EQ(read[0].username, "ada");
  EXPECT_EQ(read[0].password, "a:b ");
  read = *ParseDockerConfig(R"({"auths":{"r.example":{"username":"ada","password":"pw"}}})", "c");
  EXPECT_EQ(read[0].password, "pw");
  read = *ParseDockerConfig(R"({"auths":{"r.example":{"identitytoken":"tok"}}})", "c");
  EXPECT_EQ(read[0].identity_token, "tok");
  read = *ParseDockerConfig(R"({"auths":{"r.example":{"registrytoken":"tok"}}})", "c");
  EXPECT_EQ(read[0].registry_token, "tok");
  for (const char* nothing : {"{}", R"({"auths":{}})", R"({"auths":{"r.example":{}}})",
                              R"({"auths":null,"credHelpers":{},"credsStore":""})",
                              R"({"HttpHeaders":{"a":"b"},"psFormat":"x","proxies":{}})"})
    EXPECT_TRUE(ParseDockerConfig(nothing, "c")->empty()) << nothing;
}

TEST(DockerConfigTest, RefusesHelpersAndDamage) {
  EXPECT_THAT(ErrorOf(R"({"credsStore":"desktop"})"), HasSubstr("\"desktop\", a program"));
  EXPECT_THAT(ErrorOf(R"({"credHelpers":{"gcr.io":"gcloud"}})"), HasSubstr("never runs"));
  EXPECT_THAT(ErrorOf(R"({"auths":{},"credsStore":"x"})"), HasSubstr("docker config config.json"));
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string(R"({"auths":[]})"),
        std::string(R"({"credHelpers":[1]})"), Entry("r.example", "canary"),
        Entry("r.example", ":canary"), Entry("a b", "ada:canary"), Entry("", "ada:canary"),
        std::string(R"({"auths":{"r.example":{"auth":"canary!"}}})"),
        std::string(R"({"auths":{"r.example":"canary"}})"),
        std::string(R"({"auths":{"r.example":{"username":"a:b","password":"canary"}}})")}) {
    EXPECT_NE(ErrorOf(text), "") << text;
    EXPECT_THAT(ErrorOf(text), Not(HasSubstr("canary"))) << text;
  }
}

std::string UserFor(const HostTable& hosts, const std::string& ref) {
  return hosts.EndpointOf(*oci::ParseReference(ref))->username;
}

TEST(DockerConfigTest, TheClosestEntryCounts) {
  PullConfig config;
  const auto add = [&](const std::string& host, const std::string& prefix) {
    config.credentials.push_back({.host = host,
                                  .repository_prefix = prefix,
                                  .username = host + "/" + prefix,
                                  .password = "p",
                                  .identity_token = "",
                                  .registry_token = ""});
  };
  add("r.example", "");
  add("r.example", "team");
  add("r.example", "team/app");
  add("docker.io", "");
  add("r.example:5000", "");
  add("own.example", "");
  config.registries.resize(1);
  config.registries[0].host = "own.example";
  config.registries[0].username = "configured";
  const HostTable hosts = *HostTable::Create(config);
  const std::pair<std::string, std::string> table[] = {
      {"r.example/x", "r.example/"},
      {"r.example/team/x", "r.example/team"},
      {"r.example/team", "r.example/team"},
      {"r.example/teams/x", "r.example/"},
      {"r.example/team/app", "r.example/team/app"},
      {"r.example/team/app/x", "r.example/team/app"},
      {"r.example/team/apps", "r.example/team"},
      {"r.example:443/x", "r.example/"},
      {"r.example:5000/x", "r.example:5000/"},
      {"r.example:5001/x", ""},
      {"debian", "docker.io/"},
      {"sub.r.example/x", ""},
      {"own.example/x", "configured"},
  };
  for (const auto& [ref, user] : table) EXPECT_EQ(UserFor(hosts, ref), user) << ref;
}

}  // namespace
}  // namespace bunker::agent
