// Pulls from Debian's docker-registry: real pushes, real manifests, real authentication.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "agent/cache/blob_store.h"
#include "agent/pull/image_source.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "tests/unit/agent_pull/registry_fixture.h"

namespace bunker::agent {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RegistryPullTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    layout_ = new TempFolder;
    made_ = MakeLayout(*layout_ / "image", {"--index", "--layer", "gzip:etc/base=one,big=@3000000",
                                            "--layer", "tar:etc/two=two", "--layer", "gzip:x=y"});
    registry_ = new RealRegistry;
    registry_->Push(*layout_ / "image", "team/app:1.0");
  }
  static void TearDownTestSuite() {
    delete registry_;
    delete layout_;
  }

  void SetUp() override { blobs_ = *BlobStore::Open(folder_ / "blobs"); }

  static PullConfig ConfigFor(const std::string& host) {
    PullConfig config;
    config.registries = {{.host = host,
                          .insecure_http = false,
                          .ca_file = "",
                          .username = "",
                          .password = "",
                          .allow_addresses = true,
                          .token_hosts = {}}};
    config.first_backoff = absl::Milliseconds(1);
    return config;
  }

  absl::StatusOr<std::vector<LayerFile>> Pull(const PullConfig& config, const std::string& ref,
                                              const std::string& arch = "X86_64",
                                              const std::string& pinned = "") {
    puller_ = *ImagePuller::Create(config);
    const SourceSpec spec = {.oci_ref = ref, .tar_path = "", .tenant_id = "", .scope = ""};
    auto source = puller_->OpenSource(spec, pinned, arch);
    if (!source.ok()) return source.status();
    auto image = (*source)->Resolve(cancel_);
    if (!image.ok()) return image.status();
    image_ = *image;
    return (*source)->Fetch(image_, *blobs_, cancel_, [&](uint64_t done, uint64_t total) {
      last_done_ = done;
      last_total_ = total;
    });
  }

  static TempFolder* layout_;
  static nlohmann::json made_;
  static RealRegistry* registry_;
  TempFolder folder_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<ImagePuller> puller_;
  CancelToken cancel_;
  ResolvedImage image_;
  uint64_t last_done_ = 0;
  uint64_t last_total_ = 0;
};

TempFolder* RegistryPullTest::layout_;
nlohmann::json RegistryPullTest::made_;
RealRegistry* RegistryPullTest::registry_;

TEST_F(RegistryPullTest, PullsAnIndexByTag) {
  const auto files = Pull(ConfigFor(registry_->host()), registry_->host() + "/team/app:1.0");
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(image_.manifest_digest.str(), made_["manifest"]);
  EXPECT_EQ(image_.index_digest.str(), made_["index"]);
  EXPECT_EQ(image_.repository, registry_->host() + "/team/app");
  EXPECT_THAT(image_.config.Args(), ElementsAre("/bin/sh", "-c", "true"));
  EXPECT_THAT(image_.config.env, ElementsAre("PATH=/usr/bin:/bin", "GREETING=hello"));
  EXPECT_EQ(image_.config.working_dir, "/srv");
  EXPECT_EQ(image_.config.user, "1000:1000");
  EXPECT_THAT(image_.config.exposed_ports, ElementsAre("8080/tcp"));
  ASSERT_EQ(files->size(), 3u);
  for (size_t i = 0; i < files->size(); ++i) {
    const LayerFile& file = (*files)[i];
    EXPECT_EQ(file.digest.str(), made_["layers"][i]["digest"]);
    EXPECT_EQ(file.diff_id.str(), made_["layers"][i]["diff_id"]);
    const auto content = ReadFile(file.path, 1u << 30);
    ASSERT_TRUE(content.ok());
    EXPECT_EQ(oci::Digest::Of(*content), file.digest);
    EXPECT_EQ(content->size(), file.size_bytes);
  }
  EXPECT_EQ((*files)[1].compression, oci::Compression::kNone);
  EXPECT_EQ(last_done_, image_.CompressedBytes());
  EXPECT_EQ(last_total_, image_.CompressedBytes());
}

TEST_F(RegistryPullTest, PullsByPinnedDigestAndSharesBlobs) {
  const std::string pinned = made_["manifest"];
  ASSERT_TRUE(Pull(ConfigFor(registry_->host()), registry_->host() + "/team/app:1.0").ok());
  ASSERT_TRUE(
      Pull(ConfigFor(registry_->host()), registry_->host() + "/team/app:1.0", "X86_64", pinned)
          .ok());
  EXPECT_EQ(image_.manifest_digest.str(), pinned);
  EXPECT_TRUE(image_.index_digest.empty());
  EXPECT_EQ(blobs_->List().size(), 3u);
}

TEST_F(RegistryPullTest, NamesWhatIsOfferedForAnotherArch) {
  const auto files =
      Pull(ConfigFor(registry_->host()), registry_->host() + "/team/app:1.0", "AARCH64");
  EXPECT_EQ(ReasonOf(files.status()), "ARCH_UNAVAILABLE");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("linux/s390x, linux/amd64"));
}

TEST_F(RegistryPullTest, SaysThatATagIsMissing) {
  const auto files = Pull(ConfigFor(registry_->host()), registry_->host() + "/team/app:none");
  EXPECT_EQ(ReasonOf(files.status()), "IMAGE_NOT_FOUND");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("/team/app:none"));
}

TEST_F(RegistryPullTest, RefusesLoopbackThatIsNotListed) {
  const auto files = Pull(PullConfig(), registry_->host() + "/team/app:1.0");
  EXPECT_EQ(ReasonOf(files.status()), "REGISTRY_UNREACHABLE");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("loopback"));
}

TEST_F(RegistryPullTest, FollowsAMirror) {
  PullConfig config;
  config.mirrors = {{"docker.io", "http://" + registry_->host()}};
  const auto files = Pull(config, "docker.io/team/app:1.0");
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(image_.repository, "docker.io/team/app");
}

TEST_F(RegistryPullTest, SaysThatTheRegistryIsDown) {
  const std::string host = "127.0.0.1:" + std::to_string(FreePort());
  const auto files = Pull(ConfigFor(host), host + "/team/app:1.0");
  EXPECT_EQ(ReasonOf(files.status()), "REGISTRY_UNREACHABLE");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr(host));
  EXPECT_TRUE(IsRetryablePullError(files.status()));
}

TEST_F(RegistryPullTest, FindsATruncatedAndADamagedBlobInTheRegistry) {
  RealRegistry registry;
  const TempFolder layout;
  const nlohmann::json made = MakeLayout(layout / "image", {"--layer", "gzip:a=@100000"});
  registry.Push(layout / "image", "app:1");
  const std::string hex = made["layers"][0]["digest"].get<std::string>().substr(7);
  const std::string stored = registry.storage() + "/docker/registry/v2/blobs/sha256/" +
                             hex.substr(0, 2) + "/" + hex + "/data";
  const uint64_t size = std::filesystem::file_size(stored);
  std::filesystem::resize_file(stored, size - 1000);
  registry.Restart();
  auto files = Pull(ConfigFor(registry.host()), registry.host() + "/app:1");
  EXPECT_EQ(ReasonOf(files.status()), "LAYER_CORRUPT") << files.status();
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("truncated"));
  std::filesystem::resize_file(stored, size);  // zeros at the end
  registry.Restart();
  files = Pull(ConfigFor(registry.host()), registry.host() + "/app:1");
  EXPECT_EQ(ReasonOf(files.status()), "DIGEST_MISMATCH") << files.status();
  EXPECT_TRUE(blobs_->List().empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "blobs/partial"));
}

TEST_F(RegistryPullTest, SignsInWithBasicCredentials) {
  RealRegistry registry("ada", "s3cret:pass");
  registry.Push(*layout_ / "image", "app:1");
  const std::string ref = registry.host() + "/app:1";
  PullConfig config = ConfigFor(registry.host());
  auto files = Pull(config, ref);
  EXPECT_EQ(ReasonOf(files.status()), "REGISTRY_AUTH_FAILED");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("store a registry credential"));
  config.registries[0].username = "ada";
  config.registries[0].password = "wrong";
  files = Pull(config, ref);
  EXPECT_EQ(ReasonOf(files.status()), "REGISTRY_AUTH_FAILED");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("refuses the user name"));
  config.registries[0].password = "s3cret:pass";
  files = Pull(config, ref);
  EXPECT_TRUE(files.ok()) << files.status();
}

TEST_F(RegistryPullTest, BelievesTheConfiguredAuthorityAlone) {
  RealRegistry registry("ada", "pw", /*tls=*/true);
  registry.Push(*layout_ / "image", "app:1");
  const std::string ref = registry.host() + "/app:1";
  PullConfig config = ConfigFor(registry.host());
  config.registries[0].username = "ada";
  config.registries[0].password = "pw";
  config.registries[0].ca_file = registry.ca_file();
  auto files = Pull(config, ref);
  EXPECT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(registry.Log(), HasSubstr("HTTP/2.0"));

  RealRegistry other("", "", /*tls=*/true);
  config.registries[0].ca_file = other.ca_file();
  files = Pull(config, ref);
  EXPECT_EQ(ReasonOf(files.status()), "REGISTRY_UNREACHABLE");
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("ca_file"));
  EXPECT_FALSE(IsRetryablePullError(files.status()));

  config.registries[0].ca_file.clear();  // loopback without an authority is plain http
  files = Pull(config, ref);
  EXPECT_EQ(ReasonOf(files.status()), "REGISTRY_UNREACHABLE");
}

}  // namespace
}  // namespace bunker::agent
