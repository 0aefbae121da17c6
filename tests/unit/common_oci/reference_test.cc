#include "common/oci/reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/oci/digest.h"

namespace bunker::oci {
namespace {
using ::testing::HasSubstr;

const std::string kDigest = "sha256:" + std::string(64, 'a');

TEST(DigestTest, TakesOneFormOnly) {
  EXPECT_EQ(Digest::Parse(kDigest)->str(), kDigest);
  const std::string bad[] = {"",
                             "sha256:",
                             std::string(64, 'a'),
                             "sha256:" + std::string(63, 'a'),
                             "sha256:" + std::string(65, 'a'),
                             "sha256:" + std::string(64, 'A'),
                             "SHA256:" + std::string(64, 'a'),
                             "sha512:" + std::string(128, 'a'),
                             "sha256:../" + std::string(61, 'a'),
                             kDigest + "\n",
                             " " + kDigest,
                             "sha256:" + std::string(63, 'a') + '\0',
                             "sha256:" + std::string(63, 'a') + "g"};
  for (const std::string& text : bad) EXPECT_FALSE(Digest::Parse(text).ok()) << text;
}

TEST(DigestTest, HashesContent) {
  EXPECT_EQ(Digest::Of("").str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

struct Good {
  std::string text, normal, endpoint;
};

TEST(ReferenceTest, Normalises) {
  const Good table[] = {
      {"debian", "docker.io/library/debian:latest", "registry-1.docker.io"},
      {"debian:12", "docker.io/library/debian:12", "registry-1.docker.io"},
      {"docker.io/debian", "docker.io/library/debian:latest", "registry-1.docker.io"},
      {"docker.io/a/b/c:x", "docker.io/a/b/c:x", "registry-1.docker.io"},
      {"index.docker.io/debian:1", "docker.io/library/debian:1", "registry-1.docker.io"},
      {"registry-1.docker.io/debian:1", "docker.io/library/debian:1", "registry-1.docker.io"},
      {"bitnami/redis:7", "docker.io/bitnami/redis:7", "registry-1.docker.io"},
      {"localhost/app", "localhost/app:latest", "localhost"},
      {"127.0.0.1:5000/team/app:v1", "127.0.0.1:5000/team/app:v1", "127.0.0.1:5000"},
      {"[::1]:5000/app:v1", "[::1]:5000/app:v1", "[::1]:5000"},
      {"GHCR.io/Owner-is-lower/x", "", ""},
      {"GHCR.io/owner/x", "ghcr.io/owner/x:latest", "ghcr.io"},
      {"ghcr.io/owner/x@" + kDigest, "ghcr.io/owner/x@" + kDigest, "ghcr.io"},
      {"ghcr.io/owner/x:v1@" + kDigest, "ghcr.io/owner/x:v1@" + kDigest, "ghcr.io"},
      {"r.example/a__b/c--d.e_f:A.B_c-1", "r.example/a__b/c--d.e_f:A.B_c-1", "r.example"},
  };
  for (const Good& row : table) {
    const auto reference = ParseReference(row.text);
    if (row.normal.empty()) {
      EXPECT_FALSE(reference.ok()) << row.text;
      continue;
    }
    ASSERT_TRUE(reference.ok()) << row.text << ": " << reference.status();
    EXPECT_EQ(reference->ToString(), row.normal);
    EXPECT_EQ(reference->Endpoint(), row.endpoint);
    const auto again = ParseReference(reference->ToString());
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->ToString(), row.normal);
  }
}

TEST(ReferenceTest, RefusesWithTheRemedy) {
  const std::pair<std::string, std::string> table[] = {
      {"", "empty"},
      {"https://ghcr.io/a/b", "leave out the scheme"},
      {"docker://debian", "leave out the scheme"},
      {"ghcr.io/Owner/x", "lower case"},
      {"Debian", "lower case"},
      {"ghcr.io/", "repository is missing"},
      {"ghcr.io/a//b", "repository part"},
      {"ghcr.io/../b", "repository part"},
      {"ghcr.io/a/..", "repository part"},
      {"ghcr.io/a..b", "repository part"},
      {"ghcr.io/a___b", "repository part"},
      {"ghcr.io/a b", "repository part"},
      {"ghcr.io/-a", "repository part"},
      {"ghcr.io/a?x=1", "repository part"},
      {"ghcr.io/a%2fb", "repository part"},
      {"ghcr.io/a:", "tag"},
      {"ghcr.io/a:.x", "tag"},
      {"ghcr.io/a:x/y", "tag"},
      {"ghcr.io/a:" + std::string(129, 'x'), "tag"},
      {"ghcr.io/a@sha256:12", "not a digest"},
      {"ghcr.io/a@" + kDigest + "@" + kDigest, "not a digest"},
      {"ghcr.io:0/a", "port"},
      {"ghcr.io:65536/a", "port"},
      {"ghcr.io:5x/a", "port"},
      {"user@ghcr.io/a", "not a digest"},
      {"[::1/a", "]"},
      {"[x.y]/a", "IPv6"},
      {"-bad.example/a", "name may hold"},
      {"a..b.example/x", "name may hold"},
      {"r.example/" + std::string(256, 'a'), "255"},
      {std::string(248, 'a'), "255"},  // Docker Hub: its library/ counts
      {std::string(600, 'a'), "512"},
  };
  for (const auto& [text, words] : table) {
    const auto reference = ParseReference(text);
    ASSERT_FALSE(reference.ok()) << text;
    EXPECT_THAT(std::string(reference.status().message()), HasSubstr(words)) << text;
  }
}

TEST(ReferenceTest, DoesNotRepeatControlCharacters) {
  const auto reference = ParseReference("ghcr.io/a\n\x1b[31m");
  ASSERT_FALSE(reference.ok());
  for (const char c : reference.status().message()) EXPECT_GE(c, ' ');
}

TEST(RegistryHostTest, TakesWhatPeopleHaveAtHand) {
  const std::pair<const char*, const char*> table[] = {
      {"docker.io", "docker.io"},
      {"https://index.docker.io/v1/", "docker.io"},
      {"https://registry-1.docker.io", "docker.io"},
      {"http://127.0.0.1:5000/", "127.0.0.1:5000"},
      {"GHCR.io", "ghcr.io"},
      {"https://ghcr.io/v2/", "ghcr.io"},
      {"[::1]:5000", "[::1]:5000"}};
  for (const auto& [text, host] : table)
    EXPECT_EQ(RegistryHostOf(text).value_or("?"), host) << text;
  for (const char* wrong : {"", "https://", "ghcr.io/team", "ftp://ghcr.io", "a b", "ghcr.io:0",
                            "https://https://ghcr.io/x"})
    EXPECT_FALSE(RegistryHostOf(wrong).ok()) << wrong;
  const auto secret = RegistryHostOf("https://ada:canary@ghcr.io");
  EXPECT_EQ(std::string(secret.status().message()).find("canary"), std::string::npos);
}

}  // namespace
}  // namespace bunker::oci
