// One layer as a stream of decompressed bytes, verified as it flows: the blob's digest and the
// diff id are taken of the same bytes that the reader sees, each on a thread of its own.
//
// The owner calls Next() until it returns null, then Verify(). Owned and used by one thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/bake_types.h"
#include "agent/bake/chunk.h"
#include "agent/bake/hash_worker.h"
#include "agent/bake/layer_source.h"

namespace bunker::agent {

struct StreamTimes {
  double inflate = 0;
  double blob_hash = 0;
  double diff_hash = 0;
};

// How many chunks of decompressed bytes one layer may have in flight. The tar reader keeps up to
// kMaxHeaderChunks of them while it reads one member's header.
inline constexpr int kStreamChunks = 16;

class LayerStream {
 public:
  // Starts at once. `source` must outlive the stream; `consumed_bytes` counts compressed bytes and
  // may be shared by streams, as `reserve` may, from which the buffers come.
  LayerStream(const LayerInput& layer, const BakeLimits& limits, LayerSource* source,
              std::atomic<uint64_t>* consumed_bytes,
              const std::shared_ptr<ChunkReserve>& reserve = std::make_shared<ChunkReserve>());
  ~LayerStream();

  // The next piece; null at the end, be it the layer's or an error's.
  ChunkPtr Next() { return queue_.Pop(); }

  // Reads to the end, joins, and says whether the layer is what it claims to be. With `abandon`
  // the rest is only hashed as a blob, not decompressed: for a layer that is refused anyway, whose
  // refusal would be wrong if the blob were not the one that was asked for.
  // Errors: DIGEST_MISMATCH, LAYER_CORRUPT, LAYER_UNSUPPORTED (ratio, window), or the source's.
  absl::Status Verify(bool abandon = false);

  // After Verify(): the diff id of what flowed.
  const std::string& diff_id() const { return diff_id_; }
  uint64_t compressed_bytes() const { return compressed_bytes_; }
  uint64_t uncompressed_bytes() const { return uncompressed_bytes_; }
  const StreamTimes& times() const { return times_; }

 private:
  void Run();
  absl::Status Inflate(const ChunkPtr& in);
  // False where the stream is being torn down.
  bool Emit(ChunkPtr chunk);
  absl::Status CheckRatio() const;

  const LayerInput layer_;
  const BakeLimits limits_;
  LayerSource* const source_;
  std::atomic<uint64_t>* const consumed_bytes_;
  const bool hash_blob_;

  const std::shared_ptr<ChunkPool> in_pool_;
  const std::shared_ptr<ChunkPool> out_pool_;
  ChunkQueue queue_;
  std::unique_ptr<HashWorker> blob_hash_;
  std::unique_ptr<HashWorker> diff_hash_;
  std::atomic<bool> abandoned_{false};

  // Written by the thread, read after its join.
  absl::Status read_status_;
  absl::Status inflate_status_;
  ChunkPtr out_;
  std::unique_ptr<class Decompressor> decompressor_;
  uint64_t compressed_bytes_ = 0;
  uint64_t uncompressed_bytes_ = 0;
  std::string diff_id_;
  StreamTimes times_;
  std::thread thread_;
};

}  // namespace bunker::agent
