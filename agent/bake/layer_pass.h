// The first of the bake's two steps: every layer is read once, the top one first. Its members are
// kept, and its file data goes down to the image at once unless an upper layer is seen to hide it.
//
// Reading from the top down makes that known in time; the tree itself is made afterwards, from the
// bottom up (rootfs_tree.h), where symbolic links are known. Where the guess was wrong the data is
// read again (dropped, but needed) or becomes a hole (written, but hidden).
//
// Not thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/bake/bake_types.h"
#include "agent/bake/block_writer.h"
#include "agent/bake/data_placer.h"
#include "agent/bake/layer_source.h"
#include "agent/bake/layer_stream.h"
#include "agent/bake/member.h"
#include "agent/bake/path_table.h"
#include "agent/bake/tar_reader.h"

namespace bunker::agent {

struct DroppedXattrs {
  uint64_t count = 0;
  std::vector<std::string> shown;  // "path: name", the first 100
};

// Which members of a layer to read the data of, in a second reading.
using WantedMembers = std::vector<size_t>;  // ascending

class LayerPass {
 public:
  // All of them must outlive the pass. `sources[i]` is the blob of `layers[i]`, bottom first.
  LayerPass(const std::vector<LayerInput>& layers, const BakeLimits& limits,
            const std::vector<std::unique_ptr<LayerSource>>& sources, BlockWriter* writer,
            PathTable* paths, std::atomic<uint64_t>* consumed_bytes);

  // Reads every layer. Errors as Bake()'s, each naming its layer.
  absl::Status Run();

  // Reads layer `index` again and writes the data of `wanted`.
  absl::Status Reread(size_t index, const WantedMembers& wanted);

  // After Run(): what the layers hold, bottom first, in stream order.
  std::vector<std::vector<Member>>& members() { return members_; }
  const std::vector<std::string>& diff_ids() const { return diff_ids_; }
  const DroppedXattrs& dropped() const { return dropped_; }
  const StreamTimes& times() const { return times_; }
  uint64_t compressed_bytes() const { return compressed_bytes_; }
  uint64_t uncompressed_bytes() const { return uncompressed_bytes_; }

 private:
  std::unique_ptr<LayerStream> Start(size_t index);
  absl::Status ReadLayer(size_t index, LayerStream* stream);
  absl::Status ReadMembers(size_t index, LayerStream* stream);
  absl::Status TakeMember(size_t index, TarReader* reader, TarMember* read);
  absl::Status TakeData(TarReader* reader, bool written, Member* member);
  absl::StatusOr<bool> TakeWhiteout(const TarMember& read,
                                    std::vector<std::string_view>* components, Member* member);
  absl::Status TakeXattrs(TarMember* read, Member* member);
  void Mark(size_t index, const Member& member);
  absl::Status Conclude(size_t index, LayerStream* stream, const absl::Status& read);

  const std::vector<LayerInput>& layers_;
  const BakeLimits& limits_;
  const std::vector<std::unique_ptr<LayerSource>>& sources_;
  PathTable* const paths_;
  std::atomic<uint64_t>* const consumed_bytes_;
  const std::shared_ptr<ChunkReserve> reserve_ = std::make_shared<ChunkReserve>();
  DataPlacer placer_;

  std::vector<std::vector<Member>> members_;
  std::vector<std::string> diff_ids_;
  DroppedXattrs dropped_;
  StreamTimes times_;
  uint64_t compressed_bytes_ = 0;
  uint64_t uncompressed_bytes_ = 0;
  uint64_t member_count_ = 0;
};

}  // namespace bunker::agent
