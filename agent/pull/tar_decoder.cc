#include "agent/pull/tar_decoder.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr size_t kOutBytes = 256u << 10;
constexpr uint64_t kFreeBytes = 64u << 20;
constexpr uint64_t kMaxRatio = 200;
constexpr int kMaxZstdWindowLog = 27;  // 128 MiB
constexpr size_t kTarBlock = 512;

absl::Status Corrupt(const std::string& why) {
  return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                     "the tarball is damaged (" + why + "): copy or build it again");
}

absl::Status Unsupported(const std::string& why) {
  return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED", why);
}

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual absl::Status Feed(std::string_view in, const PieceFn& out) = 0;
  virtual absl::Status End() = 0;
};

class PlainDecoder final : public Decoder {
 public:
  absl::Status Feed(std::string_view in, const PieceFn& out) override { return out(in); }
  absl::Status End() override { return absl::OkStatus(); }
};

class GzipDecoder final : public Decoder {
 public:
  GzipDecoder() {
    std::memset(&stream_, 0, sizeof stream_);
    BUNKER_CHECK(::inflateInit2(&stream_, 15 + 16) == Z_OK);
  }
  ~GzipDecoder() override { ::inflateEnd(&stream_); }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;

  absl::Status Feed(std::string_view in, const PieceFn& out) override {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    while (stream_.avail_in > 0) {
      if (ended_) {  // one member ended and there is more: another member, or padding of zeros
        if (*stream_.next_in == 0) {
          padded_ = true;
          ++stream_.next_in, --stream_.avail_in;
          continue;
        }
        if (padded_) return Corrupt("something follows the gzip data");
        BUNKER_CHECK(::inflateReset(&stream_) == Z_OK);
        ended_ = false;
      }
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      const int code = ::inflate(&stream_, Z_NO_FLUSH);
      if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
        return Corrupt(stream_.msg != nullptr ? stream_.msg : "gzip");
      const size_t produced = buffer_.size() - stream_.avail_out;
      if (produced > 0) RETURN_IF_ERROR(out({buffer_.data(), produced}));
      ended_ = code == Z_STREAM_END;
    }
    return DrainRest(out);
  }
  absl::Status End() override {
    return ended_ ? absl::OkStatus() : Corrupt("its gzip data ends too early");
  }

 private:
  // Output that did not fit when the input ran out.
  absl::Status DrainRest(const PieceFn& out) {
    while (!ended_ && stream_.avail_out == 0) {
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      const int code = ::inflate(&stream_, Z_NO_FLUSH);
      const size_t produced = buffer_.size() - stream_.avail_out;
      if (produced > 0) RETURN_IF_ERROR(out({buffer_.data(), produced}));
      if (code == Z_STREAM_END)
        ended_ = true;
      else if (code != Z_OK)
        break;  // Z_BUF_ERROR: nothing was left
    }
    return absl::OkStatus();
  }

  z_stream stream_;
  bool ended_ = false;
  bool padded_ = false;
  std::string buffer_ = std::string(kOutBytes, '\0');
};

class ZstdDecoder final : public Decoder {
 public:
  ZstdDecoder() : stream_(::ZSTD_createDStream()) {
    BUNKER_CHECK(stream_ != nullptr);
    ::ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }
  absl::Status Feed(std::string_view in, const PieceFn& out) override {
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    for (bool more = true; more;) {
      ZSTD_outBuffer output{buffer_.data(), buffer_.size(), 0};
      left_ = ::ZSTD_decompressStream(stream_.get(), &output, &input);
      if (::ZSTD_isError(left_)) {
        const std::string why = ::ZSTD_getErrorName(left_);
        if (::ZSTD_getErrorCode(left_) == ZSTD_error_frameParameter_windowTooLarge)
          return Unsupported(
              "the zstd window is above 128 MiB: compress it without --ultra or "
              "--long=31");
        return Corrupt(why);
      }
      if (output.pos > 0) RETURN_IF_ERROR(out({buffer_.data(), output.pos}));
      // A frame that has ended is asked for nothing: the next one's header would count as open.
      more = input.pos < input.size || (left_ != 0 && output.pos == output.size);
    }
    return absl::OkStatus();
  }
  absl::Status End() override {
    return left_ == 0 ? absl::OkStatus() : Corrupt("its zstd data ends too early");
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ::ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  size_t left_ = 1;
  std::string buffer_ = std::string(kOutBytes, '\0');
};

std::unique_ptr<Decoder> MakeDecoder(oci::Compression compression) {
  switch (compression) {
    case oci::Compression::kGzip:
      return std::make_unique<GzipDecoder>();
    case oci::Compression::kZstd:
      return std::make_unique<ZstdDecoder>();
    case oci::Compression::kNone:
      break;
  }
  return std::make_unique<PlainDecoder>();
}
}  // namespace

bool IsTarHeader(std::string_view block) {
  if (block.size() < kTarBlock) return false;
  unsigned sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i)
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  unsigned stored = 0;
  for (const char c : block.substr(148, 8)) {
    if (c >= '0' && c <= '7')
      stored = stored * 8 + static_cast<unsigned>(c - '0');
    else if (c == '\0')
      break;
    else if (c != ' ')
      return false;
  }
  const bool zeros = block.substr(0, kTarBlock).find_first_not_of('\0') == std::string_view::npos;
  return zeros || stored == sum;  // an empty archive is two blocks of zeros
}

absl::StatusOr<oci::Compression> DetectCompression(std::string_view head) {
  const auto starts = [&](std::string_view magic) { return head.substr(0, magic.size()) == magic; };
  if (starts("\x1f\x8b")) return oci::Compression::kGzip;
  if (starts("\x28\xb5\x2f\xfd")) return oci::Compression::kZstd;
  if (IsTarHeader(head)) return oci::Compression::kNone;
  for (const auto& [magic, name] : {std::pair<std::string_view, const char*>{"\xfd"
                                                                             "7zXZ",
                                                                             "xz"},
                                    {"BZh", "bzip2"},
                                    {"\x04\x22\x4d\x18", "lz4"}}) {
    if (starts(magic)) {
      return Unsupported(std::string("the tarball is compressed with ") + name +
                         ": compress it with gzip or zstd, or not at all");
    }
  }
  return Unsupported(
      "the file is no tar archive: give a tarball (plain, gzip or zstd), an OCI "
      "layout or a docker save archive");
}

absl::Status DecodeRange(const FileRange& range, oci::Compression compression, const StopFn& stop,
                         const PieceFn& on_input, const PieceFn& on_output) {
  const std::unique_ptr<Decoder> decoder = MakeDecoder(compression);
  uint64_t in_bytes = 0, out_bytes = 0;
  const PieceFn out = [&](std::string_view piece) -> absl::Status {
    out_bytes += piece.size();
    if (out_bytes > kFreeBytes && out_bytes / kMaxRatio > in_bytes)
      return Unsupported("the tarball unpacks to more than 200 times its size");
    return on_output(piece);
  };
  const PieceFn in = [&](std::string_view piece) -> absl::Status {
    in_bytes += piece.size();
    if (on_input) RETURN_IF_ERROR(on_input(piece));
    return decoder->Feed(piece, out);
  };
  RETURN_IF_ERROR(ForEachPiece(range, 0, stop, in));
  return decoder->End();
}

}  // namespace bunker::agent
