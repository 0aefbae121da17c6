// Tarballs, layouts and archives under the operator's folder; and what lies outside of it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/cache/blob_store.h"
#include "agent/pull/image_source.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "tests/unit/agent_pull/registry_fixture.h"

namespace bunker::agent {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LocalSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    blobs_ = *BlobStore::Open(folder_ / "blobs");
    std::filesystem::create_directories(root() + "/tnt_1");
    std::filesystem::create_directories(root() + "/tnt_2");
    config_.tar_root = root();
  }

  std::string root() const { return folder_ / "tars"; }
  std::string own(const std::string& name) const { return root() + "/tnt_1/" + name; }

  // A tarball of one small file, compressed by `program` where given.
  void MakeTar(const std::string& path, const std::string& text, const std::string& option = "") {
    const TempFolder tree;
    std::ofstream(tree / "file") << text;
    std::vector<std::string> argv = {"tar", "--sort=name", "--mtime=@1", "-cf",
                                     path,  "-C",          tree.path(),  "."};
    if (!option.empty()) argv.insert(argv.begin() + 1, option);
    RunProgram(argv);
  }

  absl::StatusOr<std::vector<LayerFile>> Open(const std::string& path,
                                              const std::string& pinned = "",
                                              const std::string& scope = "tenant") {
    puller_ = *ImagePuller::Create(config_);
    SourceSpec spec;
    spec.tar_path = path;
    spec.tenant_id = "tnt_1";
    spec.scope = scope;
    auto source = puller_->OpenSource(spec, pinned, "X86_64");
    if (!source.ok()) return source.status();
    auto image = (*source)->Resolve(cancel_);
    if (!image.ok()) return image.status();
    image_ = *image;
    return (*source)->Fetch(image_, *blobs_, cancel_, nullptr);
  }

  void ExpectRefused(const std::string& path, const std::string& reason, const std::string& words,
                     const std::string& scope = "tenant") {
    const absl::Status status = Open(path, "", scope).status();
    EXPECT_EQ(ReasonOf(status), reason) << path << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words)) << path;
  }

  static void ExpectContent(const LayerFile& file) {
    const auto content = ReadFile(file.path, 1u << 30);
    ASSERT_TRUE(content.ok()) << content.status();
    EXPECT_EQ(oci::Digest::Of(*content), file.digest);
    EXPECT_EQ(content->size(), file.size_bytes);
  }

  TempFolder folder_;
  PullConfig config_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<ImagePuller> puller_;
  CancelToken cancel_;
  ResolvedImage image_;
};

TEST_F(LocalSourceTest, ReadsATarballInEveryCompressionAsTheSameImage) {
  MakeTar(own("plain.tar"), "hello");
  RunProgram({"gzip", "-k", own("plain.tar")});
  RunProgram({"zstd", "-q", "-k", own("plain.tar")});
  oci::Digest manifest;
  for (const std::string name : {"plain.tar", "plain.tar.gz", "plain.tar.zst"}) {
    const auto files = Open(own(name));
    ASSERT_TRUE(files.ok()) << files.status();
    ASSERT_EQ(files->size(), 1u);
    ExpectContent(files->front());
    EXPECT_EQ(files->front().diff_id, oci::Digest::Of(*ReadFile(own("plain.tar"), 1u << 30)));
    if (manifest.empty()) manifest = image_.manifest_digest;
    EXPECT_EQ(image_.manifest_digest, manifest);
    EXPECT_EQ(image_.source, "file");
  }
  EXPECT_TRUE(Open(own("plain.tar"), manifest.str()).ok());
  EXPECT_TRUE(Open("plain.tar").ok());  // relative to the tenant's folder
  EXPECT_TRUE(Open("tnt_1/plain.tar", "", "platform").ok());
  EXPECT_TRUE(blobs_->List().empty());  // handed on where it lies
}

TEST_F(LocalSourceTest, ReadsSeveralGzipMembers) {
  MakeTar(own("plain.tar"), std::string(300'000, 'x'));
  const std::string tar = *ReadFile(own("plain.tar"), 1u << 30);
  std::ofstream(own("a")) << tar.substr(0, 1000);
  std::ofstream(own("b")) << tar.substr(1000);
  RunProgram({"gzip", own("a"), own("b")});
  std::ofstream(own("joined.tar.gz"))
      << *ReadFile(own("a.gz"), 1u << 20) << *ReadFile(own("b.gz"), 1u << 20);
  const auto files = Open(own("joined.tar.gz"));
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->front().diff_id, oci::Digest::Of(tar));
}

TEST_F(LocalSourceTest, HoldsWorkersToTheFirstOnesContent) {
  MakeTar(own("a.tar"), "one");
  ASSERT_TRUE(Open(own("a.tar")).ok());
  const std::string pinned = image_.manifest_digest.str();
  MakeTar(own("a.tar"), "two");
  const absl::Status status = Open(own("a.tar"), pinned).status();
  EXPECT_EQ(ReasonOf(status), "DIGEST_MISMATCH");
  EXPECT_THAT(std::string(status.message()), HasSubstr(pinned));
}

TEST_F(LocalSourceTest, RefusesWhatLiesOutside) {
  MakeTar(folder_ / "secret.tar", "secret");
  MakeTar(root() + "/tnt_2/other.tar", "other");
  std::filesystem::create_symlink(folder_ / "secret.tar", own("absolute"));
  std::filesystem::create_symlink("../../secret.tar", own("relative"));
  std::filesystem::create_symlink("../tnt_2", own("sibling"));
  std::filesystem::create_symlink("/proc/self/root", own("magic"));
  std::filesystem::create_symlink("loop", own("loop"));
  std::filesystem::create_directory_symlink(root() + "/tnt_2", root() + "/tnt_3");
  const std::string refused = "SOURCE_NOT_READABLE";
  ExpectRefused(folder_ / "secret.tar", refused, "outside");
  ExpectRefused(root() + "/tnt_2/other.tar", refused, "outside");
  ExpectRefused(root() + "-evil/x.tar", refused, "outside");
  ExpectRefused(root() + "/tnt_11/x.tar", refused, "outside");
  ExpectRefused(root() + "/tnt_1/../tnt_2/other.tar", refused, "\"..\"");
  ExpectRefused("../tnt_2/other.tar", refused, "\"..\"");
  ExpectRefused(own("absolute"), refused, "leads out");
  ExpectRefused(own("relative"), refused, "leads out");
  ExpectRefused(own("sibling/other.tar"), refused, "leads out");
  ExpectRefused(own("magic/etc/passwd"), refused, "leads out");
  ExpectRefused(own("loop"), refused, "leads out");
  ExpectRefused(own("none.tar"), refused, "No such file");
  ExpectRefused(own("none.tar"), refused, "No such file", "platform");
  ExpectRefused("", "", "either");
}

TEST_F(LocalSourceTest, RefusesATenantFolderThatIsASymlink) {
  std::filesystem::remove_all(root() + "/tnt_1");
  std::filesystem::create_directory_symlink(root() + "/tnt_2", root() + "/tnt_1");
  MakeTar(root() + "/tnt_2/other.tar", "other");
  ExpectRefused(root() + "/tnt_1/other.tar", "SOURCE_NOT_READABLE", "no folder tnt_1");
}

TEST_F(LocalSourceTest, RefusesWhatIsNoFile) {
  ASSERT_EQ(::mkfifo(own("fifo").c_str(), 0600), 0);
  ExpectRefused(own("fifo"), "SOURCE_NOT_READABLE", "neither a file nor a folder");
  config_.tar_root = "";
  ExpectRefused(own("a.tar"), "SOURCE_NOT_READABLE", "tar_root");
}

TEST_F(LocalSourceTest, RefusesWhatIsNoTarball) {
  std::ofstream(own("text")) << std::string(2000, 'x');
  ExpectRefused(own("text"), "LAYER_UNSUPPORTED", "no tar archive");
  std::ofstream(own("empty"));
  ExpectRefused(own("empty"), "LAYER_UNSUPPORTED", "no tar archive");
  std::ofstream(own("a.tar.xz")) << std::string(
                                        "\xfd"
                                        "7zXZ\0",
                                        6)
                                 << std::string(2000, 'x');
  ExpectRefused(own("a.tar.xz"), "LAYER_UNSUPPORTED", "xz");
  MakeTar(own("a.tar.gz"), "x", "-z");
  RunProgram({"gzip", "-k", "-S", ".again", "-f", own("a.tar.gz")});
  ExpectRefused(own("a.tar.gz.again"), "LAYER_UNSUPPORTED", "one compression only");
  const std::string gzip = *ReadFile(own("a.tar.gz"), 1u << 20);
  std::ofstream(own("cut.tar.gz")) << gzip.substr(0, gzip.size() - 9);
  ExpectRefused(own("cut.tar.gz"), "LAYER_CORRUPT", "too early");
  std::ofstream(own("tail.tar.gz")) << gzip << std::string(20, '\0') << "tail";
  ExpectRefused(own("tail.tar.gz"), "LAYER_CORRUPT", "follows");
}

TEST_F(LocalSourceTest, RefusesABomb) {
  RunProgram({"truncate", "-s", "200M", own("zeros")});
  RunProgram({"tar", "-czf", own("bomb.tar.gz"), "-C", root() + "/tnt_1", "zeros"});
  ExpectRefused(own("bomb.tar.gz"), "LAYER_UNSUPPORTED", "200 times");
}

TEST_F(LocalSourceTest, ReadsAnOciLayoutAsAFolderAndAsAnArchive) {
  const nlohmann::json made =
      MakeLayout(own("layout"), {"--index", "--layer", "gzip:a=one", "--layer", "tar:b=two"});
  RunProgram({"tar", "-cf", own("layout.tar"), "-C", own("layout"), "."});
  for (const std::string name : {"layout", "layout.tar"}) {
    const auto files = Open(own(name));
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(image_.manifest_digest.str(), made["manifest"]);
    EXPECT_EQ(image_.index_digest.str(), made["index"]);
    EXPECT_THAT(image_.config.entrypoint, ElementsAre("/bin/sh"));
    ASSERT_EQ(files->size(), 2u);
    for (size_t i = 0; i < files->size(); ++i) {
      EXPECT_EQ((*files)[i].diff_id.str(), made["layers"][i]["diff_id"]);
      ExpectContent((*files)[i]);
    }
  }
  EXPECT_EQ(blobs_->List().size(), 2u);  // those of the archive
  EXPECT_TRUE(Open(own("layout"), made["manifest"]).ok());
  const std::string other = "sha256:" + std::string(64, 'a');
  EXPECT_EQ(ReasonOf(Open(own("layout"), other).status()), "DIGEST_MISMATCH");
}

TEST_F(LocalSourceTest, ReadsADockerArchive) {
  const nlohmann::json made =
      MakeLayout(own("layout"), {"--layer", "gzip:a=one", "--layer", "gzip:b=@100000"});
  RunProgram({"skopeo", "copy", "-q", "oci:" + own("layout") + ":latest",
              "docker-archive:" + own("saved.tar") + ":app:1"});
  const auto files = Open(own("saved.tar"));
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 2u);
  for (size_t i = 0; i < files->size(); ++i) {
    EXPECT_EQ((*files)[i].diff_id.str(), made["layers"][i]["diff_id"]);
    EXPECT_EQ((*files)[i].compression, oci::Compression::kNone);
    ExpectContent((*files)[i]);
  }
  EXPECT_THAT(image_.config.cmd, ElementsAre("-c", "true"));
  EXPECT_TRUE(Open(own("saved.tar"), image_.manifest_digest.str()).ok());
}

TEST_F(LocalSourceTest, ReadsCompressedArchivesAsWhatIsInThem) {
  config_.scratch_dir = folder_.path();
  const nlohmann::json made = MakeLayout(
      own("layout"), {"--layer", "gzip:a=one", "--layer", "tar:manifest.json=x,b=@300000"});
  RunProgram({"tar", "-cf", own("layout.tar"), "-C", own("layout"), "."});
  RunProgram({"skopeo", "copy", "-q", "oci:" + own("layout") + ":latest",
              "docker-archive:" + own("saved.tar") + ":app:1"});
  ASSERT_TRUE(Open(own("saved.tar")).ok());
  const std::string saved = image_.manifest_digest.str();
  for (const char* program : {"gzip", "zstd"}) {
    const std::string end = std::string(program) == "gzip" ? ".gz" : ".zst";
    RunProgram({program, "-q", "-k", own("layout.tar")});
    RunProgram({program, "-q", "-k", own("saved.tar")});
    auto files = Open(own("layout.tar" + end));
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(image_.manifest_digest.str(), made["manifest"]);
    for (const LayerFile& file : *files) ExpectContent(file);
    files = Open(own("saved.tar" + end));
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(image_.manifest_digest.str(), saved);  // the same on every worker
    EXPECT_EQ(files->size(), 2u);
    for (const LayerFile& file : *files) ExpectContent(file);
  }
}

// The unpacked archive has no name, so nothing is left of it, whatever ends the reading.
TEST_F(LocalSourceTest, BoundsWhatACompressedArchiveUnpacksTo) {
  const TempFolder scratch;
  config_.scratch_dir = scratch.path();
  config_.max_archive_bytes = 1u << 20;
  MakeLayout(own("layout"), {"--layer", "tar:a=@2000000"});
  RunProgram({"tar", "-czf", own("layout.tar.gz"), "-C", own("layout"), "."});
  ExpectRefused(own("layout.tar.gz"), "LAYER_UNSUPPORTED", "more than 1 MiB");
  // A bomb behind the name that makes it an image archive.
  const TempFolder tree;
  std::ofstream(tree / "manifest.json") << "[]";
  RunProgram({"truncate", "-s", "300M", tree / "zeros"});
  RunProgram({"tar", "-czf", own("bomb.tar.gz"), "-C", tree.path(), "manifest.json", "zeros"});
  config_.max_archive_bytes = uint64_t{1} << 40;
  ExpectRefused(own("bomb.tar.gz"), "LAYER_UNSUPPORTED", "200 times");
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST_F(LocalSourceTest, TakesACompressedRootFileSystemWithImageNames) {
  config_.scratch_dir = folder_.path();
  const TempFolder tree;
  std::ofstream(tree / "manifest.json") << R"([{"name": "a web app's"}])";
  std::ofstream(tree / "index.json") << "{}";
  RunProgram({"tar", "-czf", own("rootfs.tar.gz"), "-C", tree.path(), "."});
  const auto files = Open(own("rootfs.tar.gz"));
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 1u);
  ExpectContent(files->front());
}

TEST_F(LocalSourceTest, DoesNotTakeACompressedArchiveForARootFileSystem) {
  MakeLayout(own("layout"), {"--layer", "gzip:a=one"});
  RunProgram({"tar", "-czf", own("layout.tar.gz"), "-C", own("layout"), "."});
  RunProgram({"skopeo", "copy", "-q", "oci:" + own("layout") + ":latest",
              "docker-archive:" + own("saved.tar") + ":app:1"});
  RunProgram({"gzip", own("saved.tar")});
  ExpectRefused(own("layout.tar.gz"), "LAYER_UNSUPPORTED", "compressed image archive");
  ExpectRefused(own("saved.tar.gz"), "LAYER_UNSUPPORTED", "compressed image archive");
}

TEST_F(LocalSourceTest, FindsDamageInALayout) {
  const nlohmann::json made = MakeLayout(own("layout"), {"--layer", "gzip:a=@1000"});
  const auto blob = [&](const std::string& digest) {
    return own("layout") + "/blobs/sha256/" + digest.substr(7);
  };
  std::filesystem::resize_file(blob(made["layers"][0]["digest"]), 100);
  ExpectRefused(own("layout"), "LAYER_CORRUPT", "100 bytes");
  std::filesystem::remove(blob(made["layers"][0]["digest"]));
  ExpectRefused(own("layout"), "SOURCE_NOT_READABLE", "No such file");
  std::filesystem::create_symlink("/etc/hostname", blob(made["layers"][0]["digest"]));
  ExpectRefused(own("layout"), "SOURCE_NOT_READABLE", "leads out");
  std::fstream(blob(made["config"]), std::ios::in | std::ios::out) << "X";
  ExpectRefused(own("layout"), "DIGEST_MISMATCH", "other content");
}

TEST_F(LocalSourceTest, TakesARootFileSystemWithAManifestOfItsOwn) {
  const TempFolder tree;
  std::ofstream(tree / "manifest.json") << "{\"name\": \"my app\"}";
  RunProgram({"tar", "-cf", own("app.tar"), "-C", tree.path(), "manifest.json"});
  const auto files = Open(own("app.tar"));
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->size(), 1u);
}

}  // namespace
}  // namespace bunker::agent
