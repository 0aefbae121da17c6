// The bake itself, from open descriptors to a finished file, in the calling process. It is what the
// confined child runs; everything else calls Bake() (bake_supervisor.h).
//
// setlocale(LC_ALL, "C.UTF-8") must have run. Blocking; starts threads, all joined at return.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/bake/bake_types.h"
#include "agent/bake/layer_source.h"

namespace bunker::agent {

struct BakeInputs {
  std::vector<std::unique_ptr<LayerSource>> sources;  // one per layer, bottom first
  int out_fd = -1;                                    // empty, writable; stays the caller's
  int tree_fd = -1;  // likewise, for the fs-verity tree; -1: it is not kept
};

// `consumed_bytes` is the progress, readable by other threads meanwhile. On an error the output
// holds garbage. Errors as Bake()'s.
absl::StatusOr<BakeSummary> RunBake(const std::vector<LayerInput>& layers, uint32_t size_mib,
                                    const BakeLimits& limits, const BakeInputs& inputs,
                                    std::atomic<uint64_t>* consumed_bytes);

}  // namespace bunker::agent
