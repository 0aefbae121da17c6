#include "agent/bake/layer_stream.h"

#include <unistd.h>

#include <cerrno>

#include "agent/bake/bake_error.h"
#include "agent/bake/decompressor.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

// Compressed bytes in flight: what is inflated, what is hashed, and what comes next.
constexpr int kBlobChunks = 6;
static_assert(kBlobChunks >= 2 * kWakeChunks);

}  // namespace

absl::StatusOr<size_t> FdLayerSource::ReadAt(uint64_t offset, char* buffer, size_t capacity) {
  for (;;) {
    const ssize_t count = pread(fd_.get(), buffer, capacity, static_cast<off_t>(offset));
    if (count >= 0) return static_cast<size_t>(count);
    if (errno != EINTR) {
      return WithReason(ErrnoError(errno, "reading the layer's blob"), "SOURCE_NOT_READABLE");
    }
  }
}

LayerStream::LayerStream(const LayerInput& layer, const BakeLimits& limits, LayerSource* source,
                         std::atomic<uint64_t>* consumed_bytes,
                         const std::shared_ptr<ChunkReserve>& reserve)
    : layer_(layer),
      limits_(limits),
      source_(source),
      consumed_bytes_(consumed_bytes),
      // The two digests of an uncompressed layer are of the same bytes.
      hash_blob_(!layer.blob_digest.empty() && layer.compression != Compression::kNone),
      in_pool_(std::make_shared<ChunkPool>(kBlobChunks, reserve)),
      out_pool_(std::make_shared<ChunkPool>(kStreamChunks, reserve)),
      decompressor_(Decompressor::Create(layer.compression)) {
  if (hash_blob_) blob_hash_ = std::make_unique<HashWorker>();
  diff_hash_ = std::make_unique<HashWorker>();
  thread_ = std::thread([this] { Run(); });
}

LayerStream::~LayerStream() {
  abandoned_ = true;
  if (thread_.joinable()) source_->Stop();
  in_pool_->Close();
  out_pool_->Close();
  queue_.Abandon();
  if (thread_.joinable()) thread_.join();
}

void LayerStream::Run() {
  for (;;) {
    ChunkPtr in = in_pool_->Acquire();
    if (!in) break;
    absl::StatusOr<size_t> count =
        source_->ReadAt(compressed_bytes_, in->data.get(), kStageChunkBytes);
    if (!count.ok()) {
      read_status_ = count.status();
      break;
    }
    if (*count == 0) break;
    in->size = *count;
    compressed_bytes_ += *count;
    consumed_bytes_->fetch_add(*count, std::memory_order_relaxed);
    if (hash_blob_) blob_hash_->Push(in);
    if (inflate_status_.ok() && !abandoned_) inflate_status_ = Inflate(in);
  }
  if (read_status_.ok() && inflate_status_.ok() && !abandoned_) {
    inflate_status_ = decompressor_->Finish();
  }
  if (out_ && out_->size > 0) Emit(std::move(out_));
  out_.reset();
  queue_.Close();
  times_.inflate = ThreadCpuSeconds();
}

absl::Status LayerStream::Inflate(const ChunkPtr& in) {
  std::string_view rest = in->view();
  bool filled = false;
  while (!rest.empty() || filled) {
    if (!out_ && !(out_ = out_pool_->Acquire())) return absl::OkStatus();
    const size_t room = kStageChunkBytes - out_->size;
    ASSIGN_OR_RETURN(const size_t made,
                     decompressor_->Step(&rest, out_->data.get() + out_->size, room));
    out_->size += made;
    uncompressed_bytes_ += made;
    filled = made == room;
    RETURN_IF_ERROR(CheckRatio());
    if (filled && !Emit(std::move(out_))) return absl::OkStatus();
  }
  return absl::OkStatus();
}

bool LayerStream::Emit(ChunkPtr chunk) {
  out_.reset();
  diff_hash_->Push(chunk);
  if (abandoned_) return false;
  queue_.Push(std::move(chunk));
  return true;
}

absl::Status LayerStream::CheckRatio() const {
  if (uncompressed_bytes_ <= limits_.ratio_free_bytes ||
      uncompressed_bytes_ / limits_.max_ratio <= compressed_bytes_) {
    return absl::OkStatus();
  }
  return LayerRefused(absl::StrCat("decompresses to more than ", limits_.max_ratio,
                                   " times its size; raise the ratio limit in the agent's "
                                   "configuration if the image is really like that"));
}

absl::Status LayerStream::Verify(bool abandon) {
  // Without compression the blob is the stream: its digest needs the rest all the same.
  if (layer_.compression == Compression::kNone) abandon = false;
  if (abandon) {
    abandoned_ = true;
    out_pool_->Close();
    queue_.Abandon();
  }
  while (queue_.Pop()) continue;
  if (thread_.joinable()) thread_.join();
  diff_id_ = diff_hash_->Finish();
  times_.diff_hash = diff_hash_->cpu_seconds();
  const std::string blob = hash_blob_ ? blob_hash_->Finish() : diff_id_;
  if (hash_blob_) times_.blob_hash = blob_hash_->cpu_seconds();
  RETURN_IF_ERROR(read_status_);
  if (layer_.size_bytes != 0 && layer_.size_bytes != compressed_bytes_) {
    return ReasonError(
        absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
        absl::StrCat("the blob has ", compressed_bytes_, " bytes, its manifest says ",
                     layer_.size_bytes, "; pull it again"));
  }
  if (!layer_.blob_digest.empty() && blob != layer_.blob_digest) {
    return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                       absl::StrCat("the blob's digest is ", blob, ", its manifest says ",
                                    layer_.blob_digest, "; pull it again"));
  }
  RETURN_IF_ERROR(inflate_status_);
  if (abandon) return absl::OkStatus();
  if (!layer_.diff_id.empty() && diff_id_ != layer_.diff_id) {
    return LayerCorrupt(absl::StrCat("the diff id is ", diff_id_, ", the image's config says ",
                                     layer_.diff_id, "; the image was built wrongly"));
  }
  return absl::OkStatus();
}

}  // namespace bunker::agent
