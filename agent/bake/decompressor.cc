#include "agent/bake/decompressor.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cstring>

#include "agent/bake/bake_error.h"
#include "common/base/log.h"

namespace bunker::agent {
namespace {

class Passthrough : public Decompressor {
 public:
  absl::StatusOr<size_t> Step(std::string_view* in, char* out, size_t capacity) override {
    const size_t count = std::min(in->size(), capacity);
    std::memcpy(out, in->data(), count);
    in->remove_prefix(count);
    return count;
  }
  absl::Status Finish() override { return absl::OkStatus(); }
};

// ISA-L decodes one gzip member; a blob may be several, one after the other (pigz, estargz).
class Gzip : public Decompressor {
 public:
  Gzip() : state_(std::make_unique<inflate_state>()) { StartMember(); }

  absl::StatusOr<size_t> Step(std::string_view* in, char* out, size_t capacity) override {
    size_t produced = 0;
    while (produced < capacity) {
      if (state_->block_state == ISAL_BLOCK_FINISH) {
        if (in->empty()) break;
        StartMember();
      }
      const size_t room = std::min<size_t>(capacity - produced, UINT32_MAX);
      state_->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(in->data()));
      state_->avail_in = static_cast<uint32_t>(std::min<size_t>(in->size(), UINT32_MAX));
      state_->next_out = reinterpret_cast<uint8_t*>(out) + produced;
      state_->avail_out = static_cast<uint32_t>(room);
      const uint32_t given = state_->avail_in;
      if (given > 0) started_ = true;
      const int result = isal_inflate(state_.get());
      const size_t consumed = given - state_->avail_in;
      const size_t made = room - state_->avail_out;
      in->remove_prefix(consumed);
      produced += made;
      if (result < ISAL_DECOMP_OK) return Error(result);
      if (consumed == 0 && made == 0 && state_->block_state != ISAL_BLOCK_FINISH) break;
    }
    return produced;
  }

  absl::Status Finish() override {
    if (started_ && state_->block_state == ISAL_BLOCK_FINISH) return absl::OkStatus();
    return LayerCorrupt("the gzip stream is truncated; pull the layer again");
  }

 private:
  void StartMember() {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;
  }

  static absl::Status Error(int result) {
    switch (result) {
      case ISAL_INVALID_WRAPPER:
        return LayerCorrupt("not a gzip stream, though its media type says so");
      case ISAL_INCORRECT_CHECKSUM:
        return LayerCorrupt("the gzip checksum does not match; pull the layer again");
      default:
        return LayerCorrupt(absl::StrCat("the gzip stream is damaged (code ", result, ")"));
    }
  }

  std::unique_ptr<inflate_state> state_;
  bool started_ = false;
};

class Zstd : public Decompressor {
 public:
  Zstd() : context_(ZSTD_createDCtx(), &ZSTD_freeDCtx) {
    BUNKER_CHECK(context_ != nullptr);
    const size_t set =
        ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kZstdWindowLogMax);
    BUNKER_CHECK(!ZSTD_isError(set));
  }

  absl::StatusOr<size_t> Step(std::string_view* in, char* out, size_t capacity) override {
    ZSTD_inBuffer input{in->data(), in->size(), 0};
    ZSTD_outBuffer output{out, capacity, 0};
    while (output.pos < output.size) {
      const size_t before_in = input.pos;
      const size_t before_out = output.pos;
      if (input.pos == input.size && between_frames_) break;
      const size_t result = ZSTD_decompressStream(context_.get(), &output, &input);
      if (ZSTD_isError(result)) return Error(result);
      between_frames_ = result == 0;
      started_ = true;
      if (input.pos == before_in && output.pos == before_out) break;
    }
    in->remove_prefix(input.pos);
    return output.pos;
  }

  absl::Status Finish() override {
    if (started_ && between_frames_) return absl::OkStatus();
    return LayerCorrupt("the zstd stream is truncated; pull the layer again");
  }

 private:
  static absl::Status Error(size_t result) {
    switch (ZSTD_getErrorCode(result)) {
      case ZSTD_error_frameParameter_windowTooLarge:
        return LayerRefused(
            "the zstd frame needs a window of more than 128 MiB; compress the layer without "
            "--long/--ultra windows above 27");
      case ZSTD_error_prefix_unknown:
        return LayerCorrupt("not a zstd stream, though its media type says so");
      default:
        return LayerCorrupt(
            absl::StrCat("the zstd stream is damaged: ", ZSTD_getErrorName(result)));
    }
  }

  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  bool between_frames_ = true;
  bool started_ = false;
};

}  // namespace

std::unique_ptr<Decompressor> Decompressor::Create(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return std::make_unique<Gzip>();
    case Compression::kZstd:
      return std::make_unique<Zstd>();
    case Compression::kNone:
      break;
  }
  return std::make_unique<Passthrough>();
}

}  // namespace bunker::agent
