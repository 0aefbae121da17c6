// How fast a bake could be on this machine: the codecs' and SHA-256's own speeds over the very
// layers that were baked, and the raw write of what came out. Prints one JSON object.
//
// usage: bake_bound --write-bytes N --scratch FILE [--cores N] KIND:FILE...
//        KIND is gzip, zstd or none; FILE a layer, bottom first; --write-bytes what the baked file
//        has on disk, which is written to FILE, synced, and removed again.
//
// Only the libraries are called here, none of the bake's own code: what that adds is what is asked.
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kOutBytes = 1 << 20;  // as large as one of the bake's buffers
constexpr size_t kHashBytes = 64 << 20;
constexpr size_t kBlockBytes = 4096;
constexpr size_t kWriteBytes = 4 << 20;
constexpr int kRounds = 5;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "bake_bound: %s\n", what.c_str());
  std::exit(1);
}

double Now(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// CPU seconds of this thread, so that what else runs here costs nothing.
template <typename Work>
double CpuSeconds(const Work& work) {
  const double start = Now(CLOCK_THREAD_CPUTIME_ID);
  work();
  return Now(CLOCK_THREAD_CPUTIME_ID) - start;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) Die("can't read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

uint64_t Gunzip(const std::string& data, char* out) {
  const auto state = std::make_unique<inflate_state>();
  uint64_t total = 0;
  size_t at = 0;
  while (at < data.size()) {
    isal_inflate_init(state.get());
    state->crc_flag = ISAL_GZIP;
    state->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(data.data())) + at;
    const size_t given = std::min<size_t>(data.size() - at, UINT32_MAX);
    state->avail_in = static_cast<uint32_t>(given);
    do {
      state->next_out = reinterpret_cast<uint8_t*>(out);
      state->avail_out = kOutBytes;
      if (isal_inflate(state.get()) != ISAL_DECOMP_OK) Die("a gzip layer is damaged");
      total += kOutBytes - state->avail_out;
      if (state->avail_out == kOutBytes && state->block_state != ISAL_BLOCK_FINISH)
        Die("a gzip layer is cut");
    } while (state->block_state != ISAL_BLOCK_FINISH);
    at += given - state->avail_in;
  }
  return total;
}

uint64_t Unzstd(const std::string& data, char* out) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   &ZSTD_freeDCtx);
  ZSTD_inBuffer input{data.data(), data.size(), 0};
  uint64_t total = 0;
  size_t last = 0;
  do {
    ZSTD_outBuffer output{out, kOutBytes, 0};
    last = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(last)) Die("a zstd layer is damaged");
    total += output.pos;
  } while (input.pos < input.size || last != 0);
  return total;
}

struct Hasher {
  Hasher()
      : context(EVP_MD_CTX_new(), &EVP_MD_CTX_free),
        method(EVP_MD_fetch(nullptr, "SHA256", nullptr), &EVP_MD_free) {
    if (!context || !method) Die("no SHA-256");
  }
  void Hash(const char* data, size_t size, size_t piece) {
    unsigned char digest[32];
    unsigned int length = 0;
    if (EVP_DigestInit_ex2(context.get(), method.get(), nullptr) != 1) Die("SHA-256");
    for (size_t at = 0; at < size; at += piece)
      EVP_DigestUpdate(context.get(), data + at, std::min(piece, size - at));
    EVP_DigestFinal_ex(context.get(), digest, &length);
  }
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context;
  std::unique_ptr<EVP_MD, void (*)(EVP_MD*)> method;
};

// Bytes a second: of one stream, and of blocks that are hashed one by one.
void MeasureSha(double* stream, double* blocks) {
  std::vector<char> data(kHashBytes);
  uint32_t value = 1;
  for (char& c : data) c = static_cast<char>((value = value * 1664525 + 1013904223) >> 24);
  Hasher hasher;
  std::vector<double> streams, pieces;
  for (int round = 0; round < kRounds; ++round) {
    streams.push_back(CpuSeconds([&] { hasher.Hash(data.data(), data.size(), 1 << 20); }));
    pieces.push_back(CpuSeconds([&] {
      for (size_t at = 0; at < data.size(); at += kBlockBytes)
        hasher.Hash(data.data() + at, kBlockBytes, kBlockBytes);
    }));
  }
  *stream = static_cast<double>(kHashBytes) / Median(streams);
  *blocks = static_cast<double>(kHashBytes) / Median(pieces);
}

struct Write {
  double cpu_seconds = 0;
  double wall_seconds = 0;
  bool direct = false;
};

Write MeasureWrite(const std::string& path, uint64_t bytes) {
  const std::unique_ptr<char, void (*)(void*)> data(
      static_cast<char*>(std::aligned_alloc(kBlockBytes, kWriteBytes)), &std::free);
  std::memset(data.get(), 0x5a, kWriteBytes);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) Die("can't create " + path);
  Write result;
  result.direct = fcntl(fd, F_SETFL, O_DIRECT) == 0;
  const double start = Now(CLOCK_MONOTONIC);
  result.cpu_seconds = CpuSeconds([&] {
    for (uint64_t at = 0; at < bytes; at += kWriteBytes) {
      if (pwrite(fd, data.get(), kWriteBytes, static_cast<off_t>(at)) != kWriteBytes)
        Die("can't write " + path);
    }
    if (fsync(fd) != 0) Die("can't sync " + path);
  });
  result.wall_seconds = Now(CLOCK_MONOTONIC) - start;
  close(fd);
  unlink(path.c_str());
  return result;
}

struct Layer {
  std::string kind;
  std::string path;
  uint64_t compressed = 0;
  uint64_t uncompressed = 0;
  double codec_seconds = 0;
};

void MeasureLayer(Layer* layer) {
  const std::string data = ReadFile(layer->path);
  const std::unique_ptr<char[]> out(new char[kOutBytes]);
  layer->compressed = data.size();
  layer->uncompressed = data.size();
  std::vector<double> seconds;
  for (int round = 0; round < 3 && layer->kind != "none"; ++round) {
    seconds.push_back(CpuSeconds([&] {
      layer->uncompressed =
          layer->kind == "zstd" ? Unzstd(data, out.get()) : Gunzip(data, out.get());
    }));
  }
  layer->codec_seconds = seconds.empty() ? 0 : Median(seconds);
}

struct Arguments {
  uint64_t write_bytes = 0;
  std::string scratch;
  unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<Layer> layers;
};

Arguments Parse(int argc, char** argv) {
  Arguments parsed;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool option = word.rfind("--", 0) == 0;
    if (option && i + 1 == argc) Die(word + " needs a value");
    if (word == "--write-bytes") {
      parsed.write_bytes = std::strtoull(argv[++i], nullptr, 10);
    } else if (word == "--scratch") {
      parsed.scratch = argv[++i];
    } else if (word == "--cores") {
      parsed.cores = std::max(1u, static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10)));
    } else {
      const size_t colon = word.find(':');
      if (option || colon == std::string::npos) Die("what is " + word + "?");
      parsed.layers.push_back({word.substr(0, colon), word.substr(colon + 1)});
    }
  }
  if (parsed.scratch.empty() || parsed.layers.empty() || parsed.write_bytes == 0)
    Die("usage: bake_bound --write-bytes N --scratch FILE [--cores N] KIND:FILE...");
  return parsed;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments = Parse(argc, argv);
  double stream = 0, blocks = 0;
  MeasureSha(&stream, &blocks);
  const Write write = MeasureWrite(arguments.scratch, arguments.write_bytes);
  double codec = 0, blob_sha = 0, diff_sha = 0, longest = 0;
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (Layer& layer : arguments.layers) {
    MeasureLayer(&layer);
    codec += layer.codec_seconds;
    longest = std::max(longest, layer.codec_seconds);
    if (layer.kind != "none") blob_sha += static_cast<double>(layer.compressed) / stream;
    diff_sha += static_cast<double>(layer.uncompressed) / stream;
    layers.push_back({{"kind", layer.kind},
                      {"compressed_bytes", layer.compressed},
                      {"uncompressed_bytes", layer.uncompressed},
                      {"codec_seconds", layer.codec_seconds}});
  }
  const double verity = static_cast<double>(arguments.write_bytes) / blocks;
  const double cpu = codec + blob_sha + diff_sha + verity + write.cpu_seconds;
  const double chain = std::max(longest, write.wall_seconds);
  const nlohmann::ordered_json json = {{"cpu_seconds", cpu},
                                       {"wall_seconds", std::max(cpu / arguments.cores, chain)},
                                       {"longest_chain_seconds", chain},
                                       {"cores", arguments.cores},
                                       {"parts",
                                        {{"codec", codec},
                                         {"blob_sha", blob_sha},
                                         {"diff_sha", diff_sha},
                                         {"verity_sha", verity},
                                         {"write_cpu", write.cpu_seconds}}},
                                       {"write_wall_seconds", write.wall_seconds},
                                       {"write_direct", write.direct},
                                       {"sha_stream_bytes_per_s", stream},
                                       {"sha_block_bytes_per_s", blocks},
                                       {"layers", layers}};
  std::printf("%s\n", json.dump(2).c_str());
  return 0;
}
