#include "common/oci/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/reason.h"
#include "common/oci/image_config.h"
#include "common/oci/platform.h"
#include "nlohmann/json.hpp"

namespace bunker::oci {
namespace {
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kDigest = "sha256:" + std::string(64, 'a');
constexpr char kOci[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kOciIndex[] = "application/vnd.oci.image.index.v1+json";
constexpr char kDocker[] = "application/vnd.docker.distribution.manifest.v2+json";
constexpr char kDockerList[] = "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr char kGzipLayer[] = "application/vnd.oci.image.layer.v1.tar+gzip";

json Descriptor(const std::string& type, const json& size = 10) {
  return {{"mediaType", type}, {"digest", kDigest}, {"size", size}};
}

json Image() {
  return {{"schemaVersion", 2},
          {"config", Descriptor("application/vnd.oci.image.config.v1+json")},
          {"layers", {Descriptor(kGzipLayer)}}};
}

json ListOf(const std::vector<std::pair<std::string, std::string>>& platforms) {
  json manifests = json::array();
  for (const auto& [os, architecture] : platforms) {
    json entry = Descriptor(kOci);
    if (!os.empty()) entry["platform"] = {{"os", os}, {"architecture", architecture}};
    entry["digest"] = Digest::Of(os + architecture).str();
    manifests.push_back(entry);
  }
  return {{"schemaVersion", 2}, {"manifests", manifests}};
}

std::string ReasonFor(const json& body, const std::string& type) {
  return ReasonOf(ParseManifest(body.dump(), type).status());
}

TEST(ManifestTest, TakesBothFamilies) {
  for (const char* type : {kOci, kDocker}) {
    json image = Image();
    EXPECT_TRUE(ParseManifest(image.dump(), type)->manifest);  // no mediaType, as umoci writes it
    image["mediaType"] = type;
    EXPECT_TRUE(ParseManifest(image.dump(), type)->manifest);
    EXPECT_TRUE(ParseManifest(image.dump(), std::string(type) + "; charset=utf-8")->manifest);
    EXPECT_TRUE(ParseManifest(image.dump(), "")->manifest);
    EXPECT_TRUE(ParseManifest(image.dump(), "application/json")->manifest);
  }
  for (const char* type : {kOciIndex, kDockerList}) {
    json index = ListOf({{"linux", "amd64"}});
    EXPECT_TRUE(ParseManifest(index.dump(), type)->index);
    index["mediaType"] = type;
    EXPECT_TRUE(ParseManifest(index.dump(), type)->index);
    EXPECT_TRUE(ParseManifest(index.dump(), "")->index);
  }
}

TEST(ManifestTest, RefusesWhatCouldBeReadInTwoWays) {
  json both = Image();
  both["manifests"] = ListOf({{"linux", "amd64"}})["manifests"];
  for (const char* type : {kOci, kOciIndex, kDocker, ""})
    EXPECT_EQ(ReasonFor(both, type), "LAYER_CORRUPT");
  json image = Image();
  image["mediaType"] = kDocker;
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT");
  EXPECT_EQ(ReasonFor(image, kOciIndex), "LAYER_CORRUPT");
  EXPECT_EQ(ReasonFor(Image(), kOciIndex), "LAYER_CORRUPT");
  EXPECT_EQ(ReasonFor(ListOf({{"linux", "amd64"}}), kOci), "LAYER_CORRUPT");
}

// One that takes the first of two members, or one that knows schema 1, would see another image.
TEST(ManifestTest, RefusesWhatReadersWouldReadDifferently) {
  const std::string twice = R"({"schemaVersion":2,"layers":[],"config":{},"layers":[]})";
  const auto parsed = ParseManifest(twice, kOci);
  EXPECT_EQ(ReasonOf(parsed.status()), "LAYER_CORRUPT");
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("names a member twice"));
  json image = Image();
  image["fsLayers"] = json::array();
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT");
  image = Image();
  image["mediaType"] = json::array({kOciIndex});
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT");
  image = Image();
  image["layers"].push_back(Descriptor(kGzipLayer, 11));  // the first one's digest
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT");
}

TEST(ManifestTest, CarriesWhatChangesNothing) {
  json image = Image();
  image["annotations"] = {{"org.opencontainers.image.title", "x"}};
  image["subject"] = Descriptor(kOci);
  image["artifactType"] = "application/vnd.example";
  image["layers"][0]["annotations"] = {{"a", "b"}};
  image["layers"][0]["data"] = "bm90IHRoZSBsYXllcg==";
  EXPECT_TRUE(ParseManifest(image.dump(), kOci).ok());
}

TEST(ManifestTest, RefusesWhatIsNoImage) {
  json image = Image();
  image["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json";
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_UNSUPPORTED");
  EXPECT_EQ(ReasonFor(Image(), "text/html"), "LAYER_UNSUPPORTED");
  EXPECT_EQ(ReasonFor({{"schemaVersion", 1}, {"fsLayers", json::array()}}, ""),
            "LAYER_UNSUPPORTED");
  EXPECT_EQ(ReasonFor(Image(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
            "LAYER_UNSUPPORTED");
  image = Image();
  image["mediaType"] = "application/vnd.oci.artifact.manifest.v1+json";
  EXPECT_EQ(ReasonFor(image, ""), "LAYER_UNSUPPORTED");
}

TEST(ManifestTest, RefusesDamage) {
  EXPECT_EQ(ReasonOf(ParseManifest("", kOci).status()), "LAYER_CORRUPT");
  EXPECT_EQ(ReasonOf(ParseManifest("[]", kOci).status()), "LAYER_CORRUPT");
  EXPECT_EQ(ReasonOf(ParseManifest("{\"schemaVersion\":2", kOci).status()), "LAYER_CORRUPT");
  const std::string deep(1u << 20, '[');
  EXPECT_EQ(ReasonOf(ParseManifest("{\"layers\":" + deep, kOci).status()), "LAYER_CORRUPT");
  for (const char* member : {"config", "layers"}) {
    json image = Image();
    image.erase(member);
    EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT");
    for (const json& wrong : {json(3), json("x"), json(nullptr)}) {
      image[member] = wrong;
      EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT") << image;
    }
  }
  for (const json& wrong : {json(-1), json(1.5), json("10"), json(nullptr), json(UINT64_MAX),
                            json(uint64_t{1} << 51)}) {
    json image = Image();
    image["layers"][0]["size"] = wrong;
    EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT") << wrong;
  }
  for (const json& wrong : {json("sha256:../../etc"), json(7), json(nullptr), json("")}) {
    json image = Image();
    image["layers"][0]["digest"] = wrong;
    EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT") << wrong;
  }
  json image = Image();
  image["schemaVersion"] = 3;
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_CORRUPT");
}

TEST(ManifestTest, HasCaps) {
  json image = Image();
  for (size_t i = 1; i < kMaxLayers; ++i) image["layers"].push_back(Descriptor(kGzipLayer));
  EXPECT_EQ(ReasonOf(ParseManifest("{\"layers\":[" + std::string(200'000, ','), kOci).status()),
            "LAYER_CORRUPT");  // before anything is built of it
  EXPECT_EQ(ParseManifest(image.dump(), kOci)->manifest->layers.size(), kMaxLayers);
  image["layers"].push_back(Descriptor(kGzipLayer));
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_UNSUPPORTED");
  EXPECT_EQ(ReasonOf(ParseManifest(std::string(kMaxManifestBytes + 1, ' '), kOci).status()),
            "LAYER_UNSUPPORTED");
  image = Image();
  image["config"]["size"] = kMaxConfigBytes + 1;
  EXPECT_EQ(ReasonFor(image, kOci), "LAYER_UNSUPPORTED");
}

TEST(LayerTest, KnowsItsCompressions) {
  EXPECT_EQ(*LayerCompression("application/vnd.oci.image.layer.v1.tar"), Compression::kNone);
  EXPECT_EQ(*LayerCompression(kGzipLayer), Compression::kGzip);
  EXPECT_EQ(*LayerCompression("application/vnd.oci.image.layer.v1.tar+zstd"), Compression::kZstd);
  EXPECT_EQ(*LayerCompression("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            Compression::kGzip);
  for (const char* type : {"", "application/octet-stream", "text/plain",
                           "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                           "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                           "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}) {
    const auto compression = LayerCompression(type);
    EXPECT_EQ(ReasonOf(compression.status()), "LAYER_UNSUPPORTED") << type;
    EXPECT_THAT(std::string(compression.status().message()), HasSubstr(type));
  }
}

Index Parsed(const json& body) {
  return *ParseManifest(body.dump(), kOciIndex)->index;
}

TEST(PlatformTest, ChoosesLinuxOfTheArch) {
  const Index index = Parsed(ListOf(
      {{"windows", "amd64"}, {"linux", "arm64"}, {"linux", "amd64"}, {"unknown", "unknown"}}));
  EXPECT_EQ(ChoosePlatform(index, "X86_64")->digest, Digest::Of("linuxamd64"));
  EXPECT_EQ(ChoosePlatform(index, "AARCH64")->digest, Digest::Of("linuxarm64"));
  EXPECT_EQ(OfferedPlatforms(index), "windows/amd64, linux/arm64, linux/amd64");
}

TEST(PlatformTest, TakesTheBaselineWhateverTheOrder) {
  struct Row {
    std::string arch;
    std::vector<std::pair<std::string, std::string>> offers;  // architecture, variant
    int chosen;                                               // -1: none
  };
  const Row table[] = {
      {"X86_64", {{"amd64", "v3"}, {"amd64", ""}}, 1},
      {"X86_64", {{"amd64", "v3"}, {"amd64", "v1"}, {"amd64", "v2"}}, 1},
      {"X86_64", {{"amd64", "v1"}, {"amd64", ""}}, 1},
      {"X86_64", {{"amd64", ""}, {"amd64", ""}}, 0},
      {"X86_64", {{"amd64", "v2"}, {"386", ""}}, -1},
      {"X86_64", {{"x86_64", ""}}, 0},
      {"AARCH64", {{"arm", "v8"}, {"arm64", "v8"}}, 1},
      {"AARCH64", {{"arm64", "v9"}, {"arm64", "8"}, {"aarch64", ""}}, 2},
      {"AARCH64", {{"arm", "v7"}, {"arm64", "v9"}}, -1},
  };
  for (const Row& row : table) {
    json index = ListOf({});
    for (const auto& [architecture, variant] : row.offers) {
      json entry = Descriptor(kOci);
      entry["digest"] = Digest::Of(std::to_string(index["manifests"].size())).str();
      entry["platform"] = {{"os", "linux"}, {"architecture", architecture}};
      if (!variant.empty()) entry["platform"]["variant"] = variant;
      index["manifests"].push_back(entry);
    }
    const auto chosen = ChoosePlatform(Parsed(index), row.arch);
    if (row.chosen < 0) {
      EXPECT_EQ(ReasonOf(chosen.status()), "ARCH_UNAVAILABLE") << index;
    } else {
      ASSERT_TRUE(chosen.ok()) << index;
      EXPECT_EQ(chosen->digest, Digest::Of(std::to_string(row.chosen))) << index;
    }
  }
}

TEST(PlatformTest, NeverTakesAnAttestation) {
  json entry = Descriptor(kOci);
  entry["annotations"] = {{"vnd.docker.reference.type", "attestation-manifest"}};
  json index = ListOf({});
  index["manifests"].push_back(entry);
  EXPECT_EQ(ReasonOf(ChoosePlatform(Parsed(index), "X86_64").status()), "ARCH_UNAVAILABLE");
}

TEST(PlatformTest, TakesAnEntryWithoutAPlatformLast) {
  EXPECT_EQ(ChoosePlatform(Parsed(ListOf({{"", ""}, {"linux", "amd64"}})), "X86_64")->digest,
            Digest::Of("linuxamd64"));
  EXPECT_EQ(ChoosePlatform(Parsed(ListOf({{"", ""}, {"linux", "s390x"}})), "X86_64")->digest,
            Digest::Of(""));
}

TEST(PlatformTest, NamesWhatIsOffered) {
  const auto none =
      ChoosePlatform(Parsed(ListOf({{"linux", "s390x"}, {"unknown", "unknown"}})), "X86_64");
  EXPECT_EQ(ReasonOf(none.status()), "ARCH_UNAVAILABLE");
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("offers linux/s390x but not linux/amd64"));
  EXPECT_FALSE(ChoosePlatform(Parsed(ListOf({})), "X86_64").ok());
  EXPECT_FALSE(ChoosePlatform(Parsed(ListOf({})), "RISCV").ok());
}

TEST(ConfigTest, ReadsWhatAnImageRuns) {
  const json body = {{"os", "linux"},
                     {"architecture", "arm64"},
                     {"config",
                      {{"Entrypoint", {"/init"}},
                       {"Cmd", {"a", "b"}},
                       {"Env", {"A=1"}},
                       {"WorkingDir", "/srv"},
                       {"User", "app"},
                       {"ExposedPorts", {{"80/tcp", json::object()}, {"53/udp", json::object()}}}}},
                     {"rootfs", {{"diff_ids", {kDigest}}}}};
  const auto config = ParseImageConfig(body.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->Args(), ElementsAre("/init", "a", "b"));
  EXPECT_THAT(config->exposed_ports, ElementsAre("53/udp", "80/tcp"));
  EXPECT_EQ(config->diff_ids.front().str(), kDigest);
}

TEST(ConfigTest, TakesNullsAndAbsence) {
  const auto config = ParseImageConfig(
      R"({"config":{"Entrypoint":null,"Cmd":null,"Env":null,"ExposedPorts":null}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->Args().empty());
  EXPECT_TRUE(ParseImageConfig("{}").ok());
}

TEST(ConfigTest, RefusesDamage) {
  for (const char* body :
       {"", "[]", "{\"config\":[]}", "{\"config\":{\"Env\":\"A=1\"}}", "{\"config\":{\"Cmd\":[1]}}",
        "{\"config\":{\"Env\":[\"A=\\u0000\"]}}", "{\"config\":{\"User\":\"a\\u0000b\"}}",
        "{\"config\":{\"WorkingDir\":\"/\\u0000\"}}", "{\"config\":{\"ExposedPorts\":[]}}",
        "{\"rootfs\":{\"diff_ids\":{}}}", "{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
        "{\"os\":\"\xff\"}"})
    EXPECT_EQ(ReasonOf(ParseImageConfig(body).status()), "LAYER_CORRUPT") << body;
}

}  // namespace
}  // namespace bunker::oci
