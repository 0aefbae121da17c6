#include "tests/unit/agent_bake/baker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <clocale>
#include <fstream>

#include "agent/bake/bake_job.h"
#include "agent/bake/bake_supervisor.h"
#include "common/base/log.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace bunker::agent::test {

std::string Gzip(const std::string& data, int level) {
  z_stream stream{};
  BUNKER_CHECK(deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  BUNKER_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& data, int window_log) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  if (window_log > 0) {
    BUNKER_CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log)));
    // A pledged size would let the frame do with less.
    BUNKER_CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0)));
  }
  std::string out(ZSTD_compressBound(data.size()) + 64, '\0');
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  ZSTD_inBuffer input{data.data(), data.size() / 2, 0};
  BUNKER_CHECK(!ZSTD_isError(ZSTD_compressStream2(context, &output, &input, ZSTD_e_continue)));
  input.size = data.size();
  BUNKER_CHECK(ZSTD_compressStream2(context, &output, &input, ZSTD_e_end) == 0);
  ZSTD_freeCCtx(context);
  out.resize(output.pos);
  return out;
}

Baker& Baker::Layer(const std::string& tar, Compression compression) {
  return Blob(compression == Compression::kGzip   ? Gzip(tar)
              : compression == Compression::kZstd ? Zstd(tar)
                                                  : tar,
              tar, compression);
}

Baker& Baker::Blob(const std::string& blob, const std::string& tar, Compression compression) {
  const std::string path = folder_.File("layer" + std::to_string(layers_.size()));
  std::ofstream(path, std::ios::binary) << blob;
  layers_.push_back(LayerInput{path, compression, "sha256:" + Sha256Hex(blob),
                               "sha256:" + Sha256Hex(tar), blob.size()});
  return *this;
}

absl::StatusOr<BakeSummary> Baker::Run(uint32_t size_mib) {
  BUNKER_CHECK(setlocale(LC_ALL, "C.UTF-8") != nullptr);
  BakeInputs inputs;
  for (const LayerInput& layer : layers_) {
    inputs.sources.push_back(
        std::make_unique<FdLayerSource>(UniqueFd(open(layer.path.c_str(), O_RDONLY | O_CLOEXEC))));
  }
  constexpr int kFlags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC;
  const UniqueFd image_fd(open(image().c_str(), kFlags, 0600));
  const UniqueFd tree_fd(open(tree().c_str(), kFlags, 0600));
  inputs.out_fd = image_fd.get();
  inputs.tree_fd = tree_fd.get();
  std::atomic<uint64_t> consumed{0};
  return RunBake(layers_, size_mib, limits_, inputs, &consumed);
}

BakeOptions Baker::Options(uint32_t size_mib) const {
  BakeOptions options;
  options.layers = layers_;
  options.size_mib = size_mib;
  options.out_path = image();
  options.tree_path = tree();
  options.limits = limits_;
  return options;
}

absl::StatusOr<BakeSummary> Baker::RunConfined(uint32_t size_mib) {
  CancelToken cancel;
  return Bake(Options(size_mib), cancel, [](const BakeProgress&) {});
}

std::map<std::string, ImageEntry> BakeAndRead(const std::vector<std::string>& tars) {
  Baker baker;
  for (const std::string& tar : tars) baker.Layer(tar);
  const absl::StatusOr<BakeSummary> summary = baker.Run();
  EXPECT_TRUE(summary.ok()) << summary.status();
  if (!summary.ok()) return {};
  EXPECT_EQ(CheckImage(baker.image()), "");
  return ReadImage(baker.image());
}

}  // namespace bunker::agent::test
