// Layers from anybody, through the whole bake: decompression, tar, merge, ext4. The first byte says
// how the rest is cut into layers and how these are compressed; unless it says otherwise, tar
// headers get a checksum that fits, so that what is behind it is reached.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/bake/bake_job.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "tests/unit/agent_bake/baker.h"

namespace {

using bunker::agent::BakeInputs;
using bunker::agent::Compression;
using bunker::agent::FdLayerSource;
using bunker::agent::LayerInput;

constexpr size_t kTarBlock = 512;
constexpr size_t kChecksumAt = 148;
constexpr size_t kChecksumBytes = 8;
constexpr uint32_t kCapMib = 64;

enum Choice : uint8_t { kTwoLayers = 1, kGzipTop = 2, kZstdBase = 4, kRawBytes = 8, kAsIs = 16 };

// Every block that says "ustar" where a header does.
std::string Sealed(std::string tar) {
  for (size_t at = 0; at + kTarBlock <= tar.size(); at += kTarBlock) {
    char* block = tar.data() + at;
    if (std::memcmp(block + 257, "ustar", 5) != 0) continue;
    std::memset(block + kChecksumAt, ' ', kChecksumBytes);
    unsigned sum = 0;
    for (size_t i = 0; i < kTarBlock; ++i) sum += static_cast<unsigned char>(block[i]);
    char text[kChecksumBytes + 1];
    std::snprintf(text, sizeof(text), "%06o", sum & 0777777u);
    std::memcpy(block + kChecksumAt, text, 7);
  }
  return tar;
}

std::string Compressed(const std::string& tar, Compression compression) {
  if (compression == Compression::kGzip) return bunker::agent::test::Gzip(tar);
  if (compression == Compression::kZstd) return bunker::agent::test::Zstd(tar);
  return tar;
}

bunker::UniqueFd MemoryFile(std::string_view content) {
  bunker::UniqueFd fd(memfd_create("fuzz", MFD_CLOEXEC));
  BUNKER_CHECK(fd && write(fd.get(), content.data(), content.size()) ==
                         static_cast<ssize_t>(content.size()));
  return fd;
}

void AddLayer(std::string_view bytes, uint8_t choice, Compression compression,
              std::vector<LayerInput>* layers, BakeInputs* inputs) {
  std::string blob(bytes);
  if ((choice & kRawBytes) == 0) blob = Sealed(std::move(blob));
  // As it is: the decompressors themselves get the fuzzer's bytes.
  if ((choice & kAsIs) == 0) blob = Compressed(blob, compression);
  LayerInput layer;
  layer.compression = compression;
  layer.size_bytes = blob.size();
  layers->push_back(layer);
  inputs->sources.push_back(std::make_unique<FdLayerSource>(MemoryFile(blob)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool locale = setlocale(LC_ALL, "C.UTF-8") != nullptr;
  BUNKER_CHECK(locale);
  if (size < 1) return 0;
  const uint8_t choice = data[0];
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<LayerInput> layers;
  BakeInputs inputs;
  const size_t cut =
      (choice & kTwoLayers) != 0 ? rest.size() / 2 / kTarBlock * kTarBlock : rest.size();
  AddLayer(rest.substr(0, cut), choice,
           (choice & kZstdBase) != 0 ? Compression::kZstd : Compression::kNone, &layers, &inputs);
  if ((choice & kTwoLayers) != 0) {
    AddLayer(rest.substr(cut), choice,
             (choice & kGzipTop) != 0 ? Compression::kGzip : Compression::kNone, &layers, &inputs);
  }
  bunker::agent::BakeLimits limits;
  limits.max_members = 10'000;
  const bunker::UniqueFd image = MemoryFile("");
  inputs.out_fd = image.get();
  std::atomic<uint64_t> consumed{0};
  const auto summary = bunker::agent::RunBake(layers, kCapMib, limits, inputs, &consumed);
  if (!summary.ok()) {
    // Every refusal is typed: nothing that a layer holds may look like our own failure.
    static constexpr std::array<std::string_view, 4> kTyped = {
        "LAYER_UNSUPPORTED", "LAYER_CORRUPT", "SIZE_CAP_EXCEEDED", "DIGEST_MISMATCH"};
    const std::string reason = bunker::ReasonOf(summary.status());
    if (std::find(kTyped.begin(), kTyped.end(), reason) == kTyped.end()) {
      std::fprintf(stderr, "%s\n", summary.status().ToString().c_str());
      BUNKER_CHECK(false);
    }
    return 0;
  }
  const std::string path =
      "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(image.get());
  BUNKER_CHECK(!bunker::agent::test::ReadImage(path).empty());
  // Now and then the whole check: it costs a process.
  static uint64_t baked = 0;
  if (++baked % 256 == 0) BUNKER_CHECK(bunker::agent::test::CheckImage(path).empty());
  return 0;
}
