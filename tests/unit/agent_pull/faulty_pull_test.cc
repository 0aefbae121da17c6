// Pulls from a registry that misbehaves on demand: what is retried, continued, refused, and what
// never leaves the worker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "absl/time/clock.h"
#include "agent/cache/blob_store.h"
#include "agent/pull/image_source.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "tests/unit/agent_pull/registry_fixture.h"

namespace bunker::agent {
namespace {
using ::testing::HasSubstr;

class FaultyPullTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    layout_ = new TempFolder;
    made_ = MakeLayout(*layout_ / "image", {"--layer", "tar:big=@3000000"});
    layer_ = made_["layers"][0]["digest"];
    size_ = made_["layers"][0]["size"];
  }
  static void TearDownTestSuite() { delete layout_; }

  void SetUp() override {
    blobs_ = *BlobStore::Open(folder_ / "blobs");
    Start({});
  }

  void Start(std::vector<std::string> options) {
    registry_ = std::make_unique<FaultyRegistry>(*layout_ / "image", std::move(options));
    config_ = PullConfig();
    config_.registries = {Listed(registry_->host())};
    config_.first_backoff = absl::Milliseconds(1);
    config_.retry_after_cap = absl::Seconds(2);
  }

  static RegistryConfig Listed(const std::string& host) {
    RegistryConfig registry;
    registry.host = host;
    registry.allow_addresses = true;
    return registry;
  }

  absl::Status Pull() {
    auto puller = *ImagePuller::Create(config_);
    SourceSpec spec;
    spec.oci_ref = registry_->host() + "/team/app:1";
    auto source = puller->OpenSource(spec, pinned_, "X86_64");
    if (!source.ok()) return source.status();
    auto image = (*source)->Resolve(cancel_);
    if (!image.ok()) return image.status();
    auto files = (*source)->Fetch(*image, *blobs_, cancel_, nullptr);
    if (!files.ok()) return files.status();
    const auto content = ReadFile(files->front().path, 1u << 30);
    EXPECT_TRUE(content.ok() && oci::Digest::Of(*content).str() == layer_);
    return absl::OkStatus();
  }

  uint64_t LayerBytesSent() {
    uint64_t sent = 0;
    for (const auto& entry : registry_->Log()) {
      if (entry["path"].get<std::string>().find(layer_) != std::string::npos)
        sent += entry["sent"].get<uint64_t>();
    }
    return sent;
  }

  void ExpectFailure(const std::string& reason, const std::string& words) {
    const absl::Status status = Pull();
    EXPECT_EQ(ReasonOf(status), reason) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
    EXPECT_THAT(std::string(status.message()), HasSubstr(registry_->host()));
    EXPECT_TRUE(blobs_->List().empty());
  }

  static TempFolder* layout_;
  static nlohmann::json made_;
  static std::string layer_;
  static uint64_t size_;
  TempFolder folder_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<FaultyRegistry> registry_;
  PullConfig config_;
  std::string pinned_;
  CancelToken cancel_;
};

TempFolder* FaultyPullTest::layout_;
nlohmann::json FaultyPullTest::made_;
std::string FaultyPullTest::layer_;
uint64_t FaultyPullTest::size_;

TEST_F(FaultyPullTest, ContinuesAfterCutsWhereverTheyAre) {
  const uint64_t cuts[] = {0, 1, 511, 65536, 262144, 1'500'000, size_ - 1};
  for (const bool reset : {false, true}) {
    for (const uint64_t at : cuts) {
      SCOPED_TRACE(std::to_string(at) + (reset ? " by a reset" : ""));
      registry_->Clear();
      registry_->Fault(
          {{"match", layer_}, {"kind", "cut"}, {"at", at}, {"times", 1}, {"reset", reset}});
      const absl::Status status = Pull();
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(registry_->Count(layer_), 2);
      EXPECT_LE(LayerBytesSent(), size_ + size_ / 50);  // bytes on the wire: at most 1.02 times
      ASSERT_TRUE(blobs_->Remove(*oci::Digest::Parse(layer_)).ok());
    }
  }
}

TEST_F(FaultyPullTest, ContinuesWhatAnEarlierProcessBegan) {
  registry_->Fault({{"match", layer_}, {"kind", "cut"}, {"at", 2'000'000}, {"times", 1}});
  registry_->Fault({{"match", layer_}, {"kind", "status"}, {"code", 503}});
  ExpectFailure("REGISTRY_UNREACHABLE", "503");
  EXPECT_FALSE(std::filesystem::is_empty(folder_ / "blobs/partial"));
  blobs_.reset();
  blobs_ = *BlobStore::Open(folder_ / "blobs");
  registry_->Clear();
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(LayerBytesSent(), size_ - 2'000'000);
}

TEST_F(FaultyPullTest, StartsOverWhereWhatWasLeftIsDamaged) {
  std::string wrong(1'000'000, 'x');
  const std::string partial = folder_ / ("blobs/partial/" + layer_.substr(7));
  ASSERT_TRUE(WriteFileDurably(partial, wrong, 0600).ok());
  const absl::Status status = Pull();
  ASSERT_TRUE(status.ok()) << status;
}

TEST_F(FaultyPullTest, DoesWithoutRanges) {
  registry_->Fault({{"match", layer_}, {"kind", "cut"}, {"at", 1'000'000}, {"times", 1}});
  registry_->Fault({{"match", layer_}, {"kind", "ignore_range"}});
  ASSERT_TRUE(Pull().ok());
}

TEST_F(FaultyPullTest, DoesNotBelieveAWrongRange) {
  registry_->Fault({{"match", layer_}, {"kind", "cut"}, {"at", 1'000'000}, {"times", 1}});
  registry_->Fault({{"match", layer_}, {"kind", "lie_range"}});
  const absl::Status status = Pull();
  ASSERT_TRUE(status.ok()) << status;
}

TEST_F(FaultyPullTest, RefusesAWrongLayer) {
  registry_->Fault({{"match", layer_}, {"kind", "flip"}});
  ExpectFailure("DIGEST_MISMATCH", layer_);
  EXPECT_EQ(registry_->Count(layer_), 1);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "blobs/partial"));
}

TEST_F(FaultyPullTest, RefusesATruncatedAndAPaddedLayer) {
  registry_->Fault({{"match", layer_}, {"kind", "short"}});
  ExpectFailure("LAYER_CORRUPT", "truncated");
  registry_->Clear();
  registry_->Fault({{"match", layer_}, {"kind", "pad"}});
  ExpectFailure("DIGEST_MISMATCH", "declares " + std::to_string(size_));
}

TEST_F(FaultyPullTest, GivesUpOnALayerThatAlwaysEndsEarly) {
  registry_->Fault({{"match", layer_}, {"kind", "cut"}, {"at", 100}});
  ExpectFailure("LAYER_CORRUPT", "ended the transfer before its end");
  EXPECT_EQ(registry_->Count(layer_), 5);
}

TEST_F(FaultyPullTest, RefusesAnotherContentEncoding) {
  registry_->Fault({{"match", layer_}, {"kind", "encode"}});
  ExpectFailure("LAYER_CORRUPT", "another encoding");
}

TEST_F(FaultyPullTest, RefusesAWrongManifestAndConfig) {
  pinned_ = made_["manifest"];
  registry_->Fault({{"match", "/manifests/"}, {"kind", "flip"}});
  ExpectFailure("DIGEST_MISMATCH", pinned_);
  registry_->Clear();
  registry_->Fault({{"match", made_["config"]}, {"kind", "flip"}});
  ExpectFailure("DIGEST_MISMATCH", "config");
}

TEST_F(FaultyPullTest, RefusesAManifestOfAnotherTypeThanItSays) {
  registry_->Fault({{"match", "/manifests/"},
                    {"kind", "type"},
                    {"value", "application/vnd.oci.image.index.v1+json"}});
  ExpectFailure("LAYER_CORRUPT", "was sent as");
  registry_->Clear();
  registry_->Fault({{"match", "/manifests/"}, {"kind", "type"}, {"value", "text/html"}});
  ExpectFailure("LAYER_UNSUPPORTED", "text/html");
}

TEST_F(FaultyPullTest, RefusesAnEndlessManifest) {
  registry_->Fault({{"match", "/manifests/"},
                    {"kind", "status"},
                    {"code", 200},
                    {"body", std::string(5u << 20, ' ')}});
  ExpectFailure("LAYER_UNSUPPORTED", "larger than");
}

TEST_F(FaultyPullTest, TriesAgainAfterServerErrors) {
  registry_->Fault({{"match", "/manifests/"}, {"kind", "status"}, {"code", 502}, {"times", 2}});
  registry_->Fault({{"match", layer_}, {"kind", "status"}, {"code", 500}, {"times", 4}});
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(registry_->Count("/manifests/"), 3);
  EXPECT_EQ(registry_->Count(layer_), 5);
}

TEST_F(FaultyPullTest, GivesUpAfterFiveTries) {
  registry_->Fault({{"match", "/manifests/"}, {"kind", "status"}, {"code", 503}});
  ExpectFailure("REGISTRY_UNREACHABLE", "503");
  EXPECT_EQ(registry_->Count("/manifests/"), 5);
}

TEST_F(FaultyPullTest, WaitsAsLongAsTheRegistryAsks) {
  registry_->Fault({{"match", "/manifests/"},
                    {"kind", "status"},
                    {"code", 429},
                    {"times", 1},
                    {"headers", {{"Retry-After", "1"}}}});
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Pull().ok());
  EXPECT_GE(absl::Now() - start, absl::Seconds(1));
}

TEST_F(FaultyPullTest, LeavesABusyRegistryAloneAsAWhole) {
  config_.fetches_per_registry = 1;
  registry_->Fault({{"match", "/manifests/"},
                    {"kind", "status"},
                    {"code", 429},
                    {"times", 1},
                    {"headers", {{"Retry-After", "1"}}}});
  auto puller = *ImagePuller::Create(config_);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      SourceSpec spec;
      spec.oci_ref = registry_->host() + "/team/app:1";
      EXPECT_TRUE((*puller->OpenSource(spec, "", "X86_64"))->Resolve(cancel_).ok());
    });
  }
  for (auto& thread : threads) thread.join();
  const nlohmann::json log = registry_->Log();
  ASSERT_GE(log.size(), 2u);
  EXPECT_EQ(log[0]["status"], 429);
  EXPECT_GE(log[1]["when"].get<double>() - log[0]["when"].get<double>(), 0.99);
}

TEST_F(FaultyPullTest, WaitsNoLongerThanTheCap) {
  config_.retry_after_cap = absl::Milliseconds(300);
  const std::string forms[] = {"99999999999999999999999", "-5", "Fri, 31 Dec 2199 23:59:59 GMT",
                               "Fri, 31 Dec 1999 23:59:59 GMT", "soon"};
  for (const std::string& form : forms) {
    registry_->Clear();
    registry_->Fault({{"match", "/manifests/"},
                      {"kind", "status"},
                      {"code", 429},
                      {"times", 1},
                      {"headers", {{"Retry-After", form}}}});
    const absl::Time start = absl::Now();
    ASSERT_TRUE(Pull().ok()) << form;
    EXPECT_LT(absl::Now() - start, absl::Seconds(2)) << form;
  }
}

TEST_F(FaultyPullTest, SaysThatItIsRateLimited) {
  registry_->Fault({{"match", "/manifests/"},
                    {"kind", "status"},
                    {"code", 429},
                    {"body", R"({"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]})"}});
  ExpectFailure("REGISTRY_RATE_LIMITED", "TOOMANYREQUESTS: slow down");
}

TEST_F(FaultyPullTest, GivesUpOnASlowDrip) {
  config_.low_speed_bytes_per_s = 1000;
  config_.low_speed_time = absl::Seconds(1);
  config_.max_tries = 2;
  registry_->Fault({{"match", layer_}, {"kind", "drip"}, {"every", 0.1}});
  const absl::Time start = absl::Now();
  ExpectFailure("REGISTRY_UNREACHABLE", "check that the registry runs");
  EXPECT_LT(absl::Now() - start, absl::Seconds(15));
}

TEST_F(FaultyPullTest, StopsSoonWhenCancelled) {
  registry_->Fault({{"match", layer_}, {"kind", "drip"}, {"every", 0.1}});
  std::thread canceller([&] {
    while (registry_->Count(made_["config"]) == 0) absl::SleepFor(absl::Milliseconds(20));
    cancel_.Cancel();
  });
  const absl::Status status = Pull();
  canceller.join();
  EXPECT_EQ(ReasonOf(status), "CANCELLED") << status;
}

TEST_F(FaultyPullTest, KeepsCredentialsFromWhereItIsRedirected) {
  FaultyRegistry other(*layout_ / "image");
  Start({"--auth", "basic", "--user", "ada", "--password", "pw"});
  config_.registries[0].username = "ada";
  config_.registries[0].password = "pw";
  config_.registries.push_back(Listed(other.host()));
  registry_->Fault(
      {{"match", layer_}, {"kind", "redirect"}, {"to", other.url() + "/v2/x/blobs/" + layer_}});
  ASSERT_TRUE(Pull().ok());
  ASSERT_EQ(other.Count(layer_), 1);
  for (const auto& entry : other.Log()) EXPECT_EQ(entry["authorization"], "");
  EXPECT_THAT(registry_->Log().dump(), HasSubstr("Basic "));
}

TEST_F(FaultyPullTest, DoesNotSignInWhereItIsRedirected) {
  FaultyRegistry other(*layout_ / "image", {"--auth", "basic", "--user", "ada"});
  Start({"--auth", "basic", "--user", "ada", "--password", "pw"});
  config_.registries[0].username = "ada";
  config_.registries[0].password = "pw";
  config_.registries.push_back(Listed(other.host()));
  registry_->Fault(
      {{"match", layer_}, {"kind", "redirect"}, {"to", other.url() + "/v2/x/blobs/" + layer_}});
  EXPECT_EQ(ReasonOf(Pull()), "REGISTRY_AUTH_FAILED");
  for (const auto& entry : other.Log()) EXPECT_EQ(entry["authorization"], "");
}

TEST_F(FaultyPullTest, RefusesRedirectsToAddressesThatAreNotListed) {
  FaultyRegistry other(*layout_ / "image");
  registry_->Fault(
      {{"match", layer_}, {"kind", "redirect"}, {"to", other.url() + "/v2/x/blobs/" + layer_}});
  ExpectFailure("REGISTRY_UNREACHABLE", "loopback");
  EXPECT_EQ(other.Log().size(), 0u);
  registry_->Clear();
  registry_->Fault({{"match", layer_},
                    {"kind", "redirect"},
                    {"to", "https://169.254.169.254/latest/meta-data/"}});
  ExpectFailure("REGISTRY_UNREACHABLE", "cloud metadata");
}

TEST_F(FaultyPullTest, RefusesARedirectLoop) {
  registry_->Fault({{"match", layer_},
                    {"kind", "redirect"},
                    {"to", registry_->url() + "/v2/x/blobs/" + layer_}});
  ExpectFailure("REGISTRY_UNREACHABLE", "redirects more than 5 times");
  EXPECT_EQ(registry_->Count(layer_), 6);
}

TEST_F(FaultyPullTest, GetsTokensAnonymously) {
  Start({"--auth", "token"});
  const absl::Status status = Pull();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(registry_->Count("/token"), 1);
  EXPECT_EQ(registry_->Count("pull%2Cpush"), 0);  // never more than it needs
}

TEST_F(FaultyPullTest, GetsTokensWithCredentials) {
  Start({"--auth", "token", "--user", "ada", "--password", "pw"});
  ExpectFailure("REGISTRY_AUTH_FAILED", "store a registry credential");
  config_.registries[0].username = "ada";
  config_.registries[0].password = "wrong";
  ExpectFailure("REGISTRY_AUTH_FAILED", "wrong user or password");
  config_.registries[0].password = "pw";
  const absl::Status status = Pull();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(FaultyPullTest, GetsANewTokenWhenOneExpiresInTheMiddle) {
  Start({"--auth", "token", "--token-life", "0.3"});
  registry_->Fault({{"match", layer_},
                    {"kind", "status"},
                    {"code", 503},
                    {"times", 1},
                    {"headers", {{"Retry-After", "1"}}}});
  const absl::Status status = Pull();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(registry_->Count("/token"), 2);
}

TEST_F(FaultyPullTest, EndsALoopOfRefusedTokens) {
  Start({"--auth", "token", "--token-life", "-1"});
  ExpectFailure("REGISTRY_AUTH_FAILED", "401");
  EXPECT_LE(registry_->Count("/token"), 3);
}

TEST_F(FaultyPullTest, KeepsCredentialsFromForeignTokenServices) {
  FaultyRegistry other(*layout_ / "image");
  std::string realm = other.url() + "/token";
  realm.replace(realm.find("127.0.0.1"), 9, "127.0.0.2");
  Start({"--auth", "token", "--realm", realm});
  config_.registries[0].username = "ada";
  config_.registries[0].password = "pw";
  ExpectFailure("REGISTRY_AUTH_FAILED", "token_hosts");
  EXPECT_EQ(other.Log().size(), 0u);
}

TEST_F(FaultyPullTest, RepeatsNoSecretsThatTheRegistryEchoes) {
  Start({"--auth", "basic", "--user", "ada", "--password", "canary-of-a-password"});
  config_.registries[0].username = "ada";
  config_.registries[0].password = "canary-of-a-password";
  registry_->Fault({{"match", "/manifests/"}, {"kind", "echo"}});
  const absl::Status status = Pull();
  EXPECT_EQ(ReasonOf(status), "REGISTRY_AUTH_FAILED");
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("DENIED: refused: *** is ada:***"));
}

TEST_F(FaultyPullTest, NeverFetchesForeignLayers) {
  FaultyRegistry canary(*layout_ / "image");
  for (const std::string type : {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                                 "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                                 "application/vnd.example.unknown"}) {
    TempFolder layout;
    MakeLayout(layout / "image",
               {"--layer", "gzip:a=b", "--media-type", type, "--url", canary.url() + "/stolen"});
    registry_ = std::make_unique<FaultyRegistry>(layout / "image");
    config_.registries = {Listed(registry_->host()), Listed(canary.host())};
    ExpectFailure("LAYER_UNSUPPORTED", type);
    EXPECT_EQ(registry_->Count("/blobs/"), 1);  // the config alone
  }
  EXPECT_EQ(canary.Log().size(), 0u);
}

TEST_F(FaultyPullTest, DownloadsOnceForManyAtOnce) {
  auto puller = *ImagePuller::Create(config_);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&] {
      SourceSpec spec;
      spec.oci_ref = registry_->host() + "/team/app:1";
      auto source = *puller->OpenSource(spec, "", "X86_64");
      const auto image = source->Resolve(cancel_);
      if (image.ok() && source->Fetch(*image, *blobs_, cancel_, nullptr).ok()) ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 20);
  EXPECT_EQ(registry_->Count(layer_), 1);
}

}  // namespace
}  // namespace bunker::agent
