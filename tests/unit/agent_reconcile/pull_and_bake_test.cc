// Pull and bake at once: what the child reads while it comes, and who has the last word.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/bake/bake_supervisor.h"
#include "agent/cache/blob_store.h"
#include "agent/reconcile/pull_and_bake.h"
#include "common/base/reason.h"
#include "tests/support/blocking_queue.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

using ::testing::HasSubstr;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Fetches layers through the real blob store as the test says, top layer first.
class ScriptedSource : public ImageSource {
 public:
  using Fetcher = std::function<absl::Status(size_t layer, const std::string& blob,
                                             oci::BlobWriter& writer, CancelToken& cancel)>;

  ScriptedSource(const std::vector<LayerInput>& layers, Fetcher fetcher)
      : fetcher_(std::move(fetcher)) {
    for (const LayerInput& layer : layers) {
      blobs_.push_back(ReadAll(layer.path));
      image_.layers.push_back({.digest = *oci::Digest::Parse(layer.blob_digest),
                               .size_bytes = layer.size_bytes,
                               .compression = layer.compression == Compression::kGzip
                                                  ? oci::Compression::kGzip
                                                  : oci::Compression::kNone,
                               .diff_id = *oci::Digest::Parse(layer.diff_id)});
    }
    image_.source = "registry";
  }

  absl::StatusOr<ResolvedImage> Resolve(CancelToken&) override { return image_; }
  std::string Origin() const override { return "test"; }

  absl::StatusOr<std::vector<LayerFile>> Fetch(const ResolvedImage& image, oci::BlobCache& blobs,
                                               CancelToken& cancel,
                                               const PullProgress& progress) override {
    std::vector<LayerFile> files(image.layers.size());
    for (size_t i = image.layers.size(); i-- > 0;) {
      const ResolvedLayer& layer = image.layers[i];
      const auto fetch = [&](oci::BlobWriter& writer) {
        return fetcher_(i, blobs_[i], writer, cancel);
      };
      auto blob = blobs.GetOrFetch(layer.digest, layer.size_bytes, "test", fetch,
                                   [&] { return cancel.cancelled(); });
      if (!blob.ok()) return blob.status();
      files[i] = {.path = (*blob)->path(),
                  .digest = layer.digest,
                  .size_bytes = layer.size_bytes,
                  .compression = layer.compression,
                  .diff_id = layer.diff_id,
                  .hold = *blob};
    }
    progress(image.CompressedBytes(), image.CompressedBytes());
    return files;
  }

  const ResolvedImage& image() const { return image_; }

 private:
  const Fetcher fetcher_;
  std::vector<std::string> blobs_;
  ResolvedImage image_;
};

class PullAndBakeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = BlobStore::Open(folder_.File("blobs"));
    ASSERT_TRUE(store.ok()) << store.status();
    blobs_ = *std::move(store);
    std::string data(3 << 20, 'x');
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761u >> 13);
    baker_.Layer(TarBuilder().Dir("d").File("d/base", data).Finish(), Compression::kGzip);
    baker_.Layer(TarBuilder().File("d/top", "top").Finish(), Compression::kGzip);
  }

  absl::StatusOr<BakeSummary> Run(ScriptedSource::Fetcher fetcher, CancelToken& cancel) {
    ScriptedSource source(baker_.layers(), std::move(fetcher));
    BakeOptions options;
    options.size_mib = 64;
    options.out_path = folder_.File("image");
    return PullAndBake(source, source.image(), *blobs_, options, cancel,
                       {.pulled = [this](uint64_t, uint64_t) { events_ += "p"; },
                        .pull_ended = [this] { events_ += "e"; },
                        .baked = [this](uint64_t, uint64_t) { events_ += "b"; }});
  }
  absl::StatusOr<BakeSummary> Run(ScriptedSource::Fetcher fetcher) {
    CancelToken cancel;
    return Run(std::move(fetcher), cancel);
  }

  std::string Partial(size_t layer) const {
    return folder_.File("blobs/partial/") + baker_.layers()[layer].blob_digest.substr(7);
  }

  bunker::test::TempDir folder_;
  mutable Baker baker_;
  std::unique_ptr<BlobStore> blobs_;
  std::string events_;
};

absl::Status InPieces(const std::string& blob, oci::BlobWriter& writer, size_t piece) {
  while (writer.offset() < blob.size()) {
    if (auto status = writer.Write(std::string_view(blob).substr(writer.offset(), piece));
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

void WaitFor(CancelToken& cancel) {
  bunker::test::BlockingQueue<int> cancelled;
  cancel.SetCallback([&] { cancelled.Push(1); });
  cancelled.Pop();
  cancel.ClearCallback();
}

TEST_F(PullAndBakeTest, GivesTheSameAsABakeOfFiles) {
  const auto expected = baker_.Run(64);
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto summary = Run([](size_t, const std::string& blob, oci::BlobWriter& writer,
                              CancelToken&) { return InPieces(blob, writer, 1000); });
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->rootfs_digest, expected->rootfs_digest);
  EXPECT_EQ(ReadAll(folder_.File("image")), ReadAll(baker_.image()));
  EXPECT_THAT(events_, HasSubstr("pe"));
  EXPECT_EQ(events_.find('b') < events_.find('e'), false);
}

// The top layer is refused while the base is still on its way: nobody waits for the rest of it.
TEST_F(PullAndBakeTest, RefusesBeforeTheRestIsPulled) {
  baker_.Layer(TarBuilder().File("a/.wh..", "").Finish());
  bool ended = false;
  const auto summary =
      Run([&](size_t layer, const std::string& blob, oci::BlobWriter& writer, CancelToken& cancel) {
        if (layer > 0) return InPieces(blob, writer, 4096);
        EXPECT_TRUE(writer.Write(std::string_view(blob).substr(0, blob.size() / 2)).ok());
        WaitFor(cancel);
        ended = true;
        return cancel.Check();
      });
  EXPECT_EQ(ReasonOf(summary.status()), "LAYER_UNSUPPORTED") << summary.status();
  EXPECT_TRUE(ended);
  EXPECT_FALSE(std::filesystem::exists(folder_.File("image")));
  EXPECT_FALSE(std::filesystem::exists(Partial(0))) << "nobody asks for the rest of it";
}

// The file that the child reads is not the one that becomes the blob: it bakes again, from that.
TEST_F(PullAndBakeTest, BakesAgainWhereABlobStartedOver) {
  const auto expected = baker_.Run(64);
  const auto summary =
      Run([this](size_t layer, const std::string& blob, oci::BlobWriter& writer, CancelToken&) {
        // Before the base is begun, so that it is written to a new file.
        if (layer == 1) std::filesystem::remove(Partial(0));
        return InPieces(blob, writer, 4096);
      });
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->rootfs_digest, expected->rootfs_digest);
}

// Another place says that it has the base, and sends something else. None of that reaches this
// image's bake before it is verified, which it never is.
TEST_F(PullAndBakeTest, IsNotFedByAnotherPlace) {
  const auto expected = baker_.Run(64);
  const LayerInput& base = baker_.layers()[0];
  bunker::test::BlockingQueue<int> begun, go;
  std::thread evil([&] {
    const auto fetch = [&](oci::BlobWriter& writer) {
      // A layer that would be refused on sight.
      const std::string wrong = TarBuilder().File("a/.wh..", "").Finish();
      EXPECT_TRUE(writer.Write(wrong.substr(0, 1024)).ok());
      begun.Push(1);
      go.Pop();
      return InPieces(std::string(base.size_bytes, 'z'), writer, 1 << 20);
    };
    const auto got = blobs_->GetOrFetch(*oci::Digest::Parse(base.blob_digest), base.size_bytes,
                                        "elsewhere", fetch, [] { return false; });
    EXPECT_EQ(ReasonOf(got.status()), "DIGEST_MISMATCH") << got.status();
  });
  begun.Pop();
  const auto summary =
      Run([&](size_t layer, const std::string& blob, oci::BlobWriter& writer, CancelToken&) {
        const auto written = InPieces(blob, writer, 4096);
        if (layer == 1) go.Push(1);  // the base comes next, and waits for the other fetch
        return written;
      });
  evil.join();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->rootfs_digest, expected->rootfs_digest);
}

// A blob that the disk has changed is found by the bake, and fetched anew the next time; the others
// stay.
TEST_F(PullAndBakeTest, ADamagedBlobIsGivenUp) {
  const auto fetch = [](size_t, const std::string& blob, oci::BlobWriter& writer, CancelToken&) {
    return InPieces(blob, writer, 1 << 20);
  };
  ASSERT_TRUE(Run(fetch).ok());
  std::filesystem::remove(folder_.File("image"));
  const std::string path = folder_.File("blobs/sha256/") + baker_.layers()[0].blob_digest.substr(7);
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(1000).put('!');
  const auto summary = Run(fetch);
  EXPECT_EQ(ReasonOf(summary.status()), "DIGEST_MISMATCH") << summary.status();
  EXPECT_EQ(blobs_->List().size(), 1u);
  EXPECT_TRUE(Run(fetch).ok());
}

TEST_F(PullAndBakeTest, AFailedPullIsTheAnswer) {
  const auto summary =
      Run([](size_t layer, const std::string& blob, oci::BlobWriter& writer, CancelToken&) {
        if (layer > 0) return InPieces(blob, writer, 4096);
        EXPECT_TRUE(writer.Write(std::string_view(blob).substr(0, 100)).ok());
        return ReasonError(absl::StatusCode::kUnavailable, "REGISTRY_UNREACHABLE", "cut");
      });
  EXPECT_EQ(ReasonOf(summary.status()), "REGISTRY_UNREACHABLE") << summary.status();
  EXPECT_FALSE(std::filesystem::exists(folder_.File("image")));
  EXPECT_EQ(std::filesystem::file_size(Partial(0)), 100u) << "for the next attempt";
}

// Wrong bytes: both see them; the pull, which knows where they are from, is heard.
TEST_F(PullAndBakeTest, AWrongDigestIsToldByThePull) {
  const auto summary =
      Run([](size_t layer, const std::string& blob, oci::BlobWriter& writer, CancelToken&) {
        if (layer > 0) return InPieces(blob, writer, 4096);
        return InPieces(std::string(blob.size(), 'z'), writer, 4096);
      });
  EXPECT_EQ(ReasonOf(summary.status()), "DIGEST_MISMATCH") << summary.status();
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr("nothing of it was kept"));
}

TEST_F(PullAndBakeTest, CancelEndsBoth) {
  CancelToken cancel;
  std::thread other;
  const auto summary = Run(
      [&](size_t layer, const std::string& blob, oci::BlobWriter& writer, CancelToken& pull) {
        if (layer > 0) return InPieces(blob, writer, 4096);
        other = std::thread([&] { cancel.Cancel(); });
        WaitFor(pull);
        return pull.Check();
      },
      cancel);
  other.join();
  EXPECT_EQ(ReasonOf(summary.status()), "CANCELLED") << summary.status();
  EXPECT_FALSE(std::filesystem::exists(folder_.File("image")));
}

}  // namespace
}  // namespace bunker::agent::test

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], bunker::agent::kBakeChildArgument) == 0) {
    return bunker::agent::BakeChildMain();
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
