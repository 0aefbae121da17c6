#include "agent/bake/bake_job.h"

#include <sys/resource.h>
#include <unistd.h>

#include "absl/container/flat_hash_set.h"
#include "absl/time/clock.h"
#include "agent/bake/bake_error.h"
#include "agent/bake/block_writer.h"
#include "agent/bake/ext4_image.h"
#include "agent/bake/layer_pass.h"
#include "agent/bake/rootfs_tree.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr uint64_t kMib = 1 << 20;

using LiveMembers = absl::flat_hash_set<const Member*>;

LiveMembers Live(const RootfsTree& tree) {
  LiveMembers live;
  for (FileId id = 0; id < tree.file_count(); ++id) {
    const TreeFile& file = tree.file(id);
    if (file.links > 0 && file.member != nullptr) live.insert(file.member);
  }
  return live;
}

// Data that only looked hidden (it lives on through a hard link or a symbolic one) is read again.
absl::StatusOr<uint64_t> ReadMissing(const LiveMembers& live, LayerPass* pass) {
  uint64_t reread = 0;
  auto& layers = pass->members();
  for (size_t index = layers.size(); index-- > 0;) {
    WantedMembers wanted;
    for (size_t i = 0; i < layers[index].size(); ++i) {
      const Member& member = layers[index][i];
      if (member.data_dropped && member.size > 0 && live.contains(&member)) wanted.push_back(i);
    }
    if (wanted.empty()) continue;
    ++reread;
    RETURN_IF_ERROR(pass->Reread(index, wanted));
  }
  return reread;
}

// Data that was written and turned out hidden becomes holes.
absl::Status PunchHidden(const LiveMembers& live, LayerPass* pass, BlockWriter* writer) {
  RETURN_IF_ERROR(writer->Drain());
  for (const std::vector<Member>& layer : pass->members()) {
    for (const Member& member : layer) {
      if (member.runs.empty() || live.contains(&member)) continue;
      for (const DataRun& run : member.runs) {
        RETURN_IF_ERROR(writer->Punch(run.physical, run.blocks));
      }
    }
  }
  return absl::OkStatus();
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

void AddUsage(BakeSummary* summary) {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return;
  summary->cpu_seconds = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  summary->peak_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

absl::Status WriteTree(const VerityTree& tree, int fd) {
  if (fd < 0) return absl::OkStatus();
  RETURN_IF_ERROR(tree.WriteTo(fd));
  if (fsync(fd) != 0) return ErrnoError(errno, "syncing the verity tree");
  return absl::OkStatus();
}

absl::Status OverCap(uint64_t size_blocks, uint32_t size_mib) {
  const uint64_t needed = (size_blocks * kBlockBytes + kMib - 1) / kMib;
  return ReasonError(absl::StatusCode::kResourceExhausted, "SIZE_CAP_EXCEEDED",
                     absl::StrCat("the image needs ", needed, " MiB, size_mib is ", size_mib,
                                  "; register it with size_mib of at least ", needed));
}

}  // namespace

absl::StatusOr<BakeSummary> RunBake(const std::vector<LayerInput>& layers, uint32_t size_mib,
                                    const BakeLimits& limits, const BakeInputs& inputs,
                                    std::atomic<uint64_t>* consumed_bytes) {
  const absl::Time start = absl::Now();
  const double cpu_start = ThreadCpuSeconds();
  BlockWriter writer(inputs.out_fd, size_mib * kMib, inputs.tree_fd);
  PathTable paths;
  LayerPass pass(layers, limits, inputs.sources, &writer, &paths, consumed_bytes);
  RETURN_IF_ERROR(pass.Run());
  const double cpu_passed = ThreadCpuSeconds();

  RootfsTree tree(&paths);
  for (size_t i = 0; i < layers.size(); ++i) {
    RETURN_IF_ERROR(Annotate(tree.ApplyLayer(pass.members()[i]),
                             absl::StrCat("layer ", i + 1, " of ", layers.size())));
  }
  const LiveMembers live = Live(tree);
  BakeSummary summary;
  ASSIGN_OR_RETURN(summary.reread_layers, ReadMissing(live, &pass));
  RETURN_IF_ERROR(PunchHidden(live, &pass, &writer));

  summary.diff_ids = pass.diff_ids();
  summary.recipe_digest = RecipeDigest(summary.diff_ids);
  Ext4Image image(&tree, &writer, IdentityOf(summary.recipe_digest));
  ASSIGN_OR_RETURN(const uint64_t size_blocks, image.Write());
  if (writer.over_cap() || size_blocks * kBlockBytes > size_mib * kMib) {
    return OverCap(size_blocks, size_mib);
  }
  ASSIGN_OR_RETURN(summary.rootfs_digest, writer.Finish(size_blocks));
  RETURN_IF_ERROR(WriteTree(writer.tree(), inputs.tree_fd));

  summary.apparent_bytes = size_blocks * kBlockBytes;
  summary.entries = image.entries();
  summary.dropped_xattr_count = pass.dropped().count;
  summary.dropped_xattrs = pass.dropped().shown;
  summary.compressed_bytes = pass.compressed_bytes();
  summary.uncompressed_bytes = pass.uncompressed_bytes();
  summary.stages = {
      {"inflate", pass.times().inflate},     {"blob_hash", pass.times().blob_hash},
      {"diff_hash", pass.times().diff_hash}, {"merge", cpu_passed - cpu_start},
      {"write", writer.cpu_seconds()},       {"metadata", ThreadCpuSeconds() - cpu_passed}};
  summary.wall_seconds = absl::ToDoubleSeconds(absl::Now() - start);
  AddUsage(&summary);
  return summary;
}

}  // namespace bunker::agent
