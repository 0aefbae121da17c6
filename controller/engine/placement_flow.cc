// Where bunkers go: the index decides, and the plain scan explains.
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "controller/engine/bridges.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {
constexpr size_t kMaxExplainedRows = 1000;
}  // namespace

PlacementRequest Engine::RequestFor(const Image& image, const CreateBunkerSpec& spec) const {
  PlacementRequest request;
  request.image_name = image.name;
  request.arch = image.arch;
  request.lazy_pull = image.lazy_pull;
  request.wanted = {spec.cpu_millicores.value_or(image.default_cpu_millicores),
                    spec.memory_mb.value_or(image.default_memory_mb) + kVmOverheadMb,
                    spec.disk_mb.value_or(image.default_disk_mb)};
  request.gpu_count = spec.gpu_count;
  request.worker_labels = spec.worker_labels;
  request.snapshot_worker_id = spec.snapshot_worker_id;
  if (spec.network_profile != NetworkProfile::kIsolated)
    request.network_profile = NameOf(spec.network_profile);
  for (const BunkerInterface& interface : spec.interfaces)
    request.bridges.insert(interface.bridge_name);
  if (!spec.interfaces.empty()) request.bridge_workers = bridges_->WorkersFor(spec.interfaces);
  request.strategy = state_->options.placement.strategy;
  return request;
}

PlacementQuery Engine::QueryFor(const Caller& caller, const Image& image,
                                PlacementRequest& request) const {
  PlacementQuery query;
  query.image_id = image.id;
  query.viewer = caller.ownership();
  query.group_ids = state_->GroupIdsHolding(image, query.viewer);
  request.image_in_group = !query.group_ids.empty();
  query.request = &request;
  return query;
}

PlacementCandidate Engine::CandidateOf(const Worker& worker, const Image& image,
                                       const PlacementQuery& query, absl::Time now) const {
  const State& s = *state_;
  PlacementCandidate candidate = s.placement.Candidate(worker.id, now);
  candidate.paired = s.placement.IsPaired(query.group_ids, worker.id) ||
                     (image.lazy_pull && query.group_ids.empty());
  candidate.image_ready = s.placement.IsReady(image.id, worker.id);
  if (candidate.image_ready) {
    candidate.cache_status = CacheStatus::kReady;
    return candidate;
  }
  const RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image.id, worker.id));
  if (entry == nullptr) return candidate;
  candidate.cache_status = entry->status;
  candidate.eta_s = entry->eta_s();
  if (entry->status == CacheStatus::kFailed) {
    candidate.cache_error = entry->error_code + ": " + entry->error_message;
  }
  return candidate;
}

PlacementExplanation Engine::ExplainFor(const Caller& caller, const Image& image,
                                        const PlacementQuery& query, absl::Time now,
                                        size_t max_rows) const {
  std::vector<PlacementCandidate> candidates;
  for (const auto& [id, worker] : state_->workers.rows()) {
    if (!MayUseWorker(query.viewer, *worker)) continue;
    PlacementCandidate candidate = CandidateOf(*worker, image, query, now);
    candidate.amounts_visible = MayChange(caller, worker->ownership);
    candidates.push_back(std::move(candidate));
  }
  return Explain(*query.request, candidates, max_rows);
}

absl::StatusOr<PlacementExplanation> Engine::ExplainPlacement(const Turn& turn,
                                                              const Caller& caller,
                                                              const CreateBunkerSpec& asked) const {
  CreateBunkerSpec spec = asked;
  ASSIGN_OR_RETURN(const RowPtr<Image> image, CheckCreate(caller, spec));
  PlacementRequest request = RequestFor(*image, spec);
  request.count = uint64_t{1} + spec.replicas.value_or(0);
  const PlacementQuery query = QueryFor(caller, *image, request);
  return ExplainFor(caller, *image, query, turn.now(), kMaxExplainedRows);
}

}  // namespace bunker::controller
