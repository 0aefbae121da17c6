#include "controller/policy/placement.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/log.h"

namespace bunker::controller {
namespace {

uint64_t Left(uint64_t room, uint64_t taken) { return room > taken ? room - taken : 0; }

PlacementRow Refuse(PlacementRow row, Predicate predicate, std::string shortfall,
                    std::string remedy) {
  row.predicate = predicate;
  row.shortfall = std::move(shortfall);
  row.remedy = std::move(remedy);
  return row;
}

// nothing: the worker's state, arch, groups and labels allow it.
std::optional<PlacementRow> JudgeFit(const PlacementRequest& request,
                                     const PlacementCandidate& candidate,
                                     const PlacementRow& row) {
  if (candidate.status != WorkerStatus::kOnline) {
    return Refuse(row, Predicate::kStatus,
                  "the worker is " + std::string(NameOf(candidate.status)),
                  candidate.status == WorkerStatus::kDraining ? "resume the worker"
                                                              : "start the agent on the worker");
  }
  if (request.arch != Arch::kUnspecified && candidate.arch != request.arch) {
    return Refuse(row, Predicate::kArch,
                  "the image is for " + std::string(NameOf(request.arch)) + ", the worker is " +
                      std::string(NameOf(candidate.arch)),
                  "use an image or a worker of the other architecture");
  }
  if (!candidate.paired) {
    return Refuse(row, Predicate::kGroup,
                  request.image_in_group
                      ? "no availability group holds both the image and the worker"
                      : "no availability group holds the image",
                  "attach the image and the worker to one availability group");
  }
  for (const auto& [label, value] : request.worker_labels) {
    const auto it = candidate.labels == nullptr
                        ? std::map<std::string, std::string>::const_iterator{}
                        : candidate.labels->find(label);
    const bool has = candidate.labels != nullptr && it != candidate.labels->end();
    if (has && it->second == value) continue;
    return Refuse(row, Predicate::kLabels,
                  "the worker's label " + label + " is " + (has ? it->second : "not set"),
                  "drop worker_labels." + label + " or label a worker " + label + "=" + value);
  }
  return std::nullopt;
}

std::optional<PlacementRow> JudgeImage(const PlacementRequest& request,
                                       const PlacementCandidate& candidate, PlacementRow row) {
  if (candidate.image_ready || request.lazy_pull) return std::nullopt;
  row.eta_s = candidate.eta_s;
  const std::string lazy = ", or set lazy_pull on the image";
  if (!candidate.cache_status) {
    return Refuse(row, Predicate::kImage, "the image is not on the worker",
                  "warm the image" + lazy);
  }
  switch (*candidate.cache_status) {
    case CacheStatus::kFailed:
      return Refuse(row, Predicate::kImage, "the image failed there: " + candidate.cache_error,
                    "fix the cause and warm the image again");
    case CacheStatus::kEvicted:
      return Refuse(row, Predicate::kImage, "the image was evicted there",
                    "warm the image" + lazy);
    case CacheStatus::kPending:
    case CacheStatus::kBuilding:
    case CacheStatus::kReady:
      break;
  }
  return Refuse(row, Predicate::kImage,
                "the image is " + std::string(NameOf(*candidate.cache_status)) + " there",
                "wait until it is ready" + lazy);
}

PlacementRow Short(const PlacementRow& row, Predicate predicate, const std::string& unit,
                   uint64_t wanted, uint64_t left, bool amounts_visible) {
  const std::string what(NameOf(predicate));
  const std::string amounts =
      amounts_visible ? ": " + std::to_string(left) + " " + unit + " left, " +
                            std::to_string(wanted) + " needed"
                      : "";
  return Refuse(row, predicate, "not enough " + what + amounts,
                "ask for less " + what + ", end other bunkers, or add workers");
}

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(whole);
}

// Higher is better: an image that is there beats everything, then the emptiest worker. The tightest
// of the three resources counts, so that a worker full of memory is not chosen for its free cores.
double Score(const PlacementRequest& request, const PlacementCandidate& candidate) {
  const Resources& room = candidate.room;
  const double used =
      std::max({Share(candidate.allocated.cpu_millicores + request.wanted.cpu_millicores,
                      room.cpu_millicores),
                Share(candidate.allocated.memory_mb + request.wanted.memory_mb, room.memory_mb),
                Share(candidate.allocated.disk_mb + request.wanted.disk_mb, room.disk_mb)});
  return (candidate.image_ready ? 10.0 : 0.0) + (1.0 - used);
}

void Conclude(const PlacementRequest& request, bool image_in_reach,
              PlacementExplanation& explanation) {
  if (explanation.eligible > 0) return;
  std::string reasons;
  for (const auto& [predicate, count] : explanation.counts) {
    if (!reasons.empty()) reasons += ", ";
    reasons += predicate + " " + std::to_string(count);
  }
  const std::string refused = reasons.empty() ? "" : " (refusals: " + reasons + ")";
  if (image_in_reach || request.lazy_pull) {
    explanation.error_code = "WORKER_UNAVAILABLE";
    explanation.error_message =
        reasons.empty() ? "there is no worker that this tenant may use: add one to an availability "
                          "group with the image"
                        : "no worker can take the bunker now" + refused +
                              ": see details for what each one lacks, end other bunkers or add "
                              "workers";
    return;
  }
  explanation.error_code = "NO_SUITABLE_WORKER";
  explanation.error_message =
      "no worker has the image " + request.image_name + " ready" + refused +
      ": wait for the fan-out, warm the image, attach it and a worker to an availability group, or "
      "set lazy_pull on it";
}

}  // namespace

Resources RoomOf(const Resources& capacity, const PlacementOptions& options) {
  Resources room;
  room.cpu_millicores = static_cast<uint64_t>(
      std::floor(static_cast<double>(capacity.cpu_millicores) * options.cpu_overcommit));
  room.memory_mb = Left(capacity.memory_mb, options.memory_reserve_mb);
  room.disk_mb = Left(capacity.disk_mb, options.disk_reserve_mb);
  return room;
}

PlacementRow Judge(const PlacementRequest& request, const PlacementCandidate& candidate) {
  PlacementRow row;
  row.worker_id = candidate.worker_id;
  row.worker_name = candidate.worker_name;
  if (std::optional<PlacementRow> no = JudgeFit(request, candidate, row)) return *std::move(no);
  if (std::optional<PlacementRow> no = JudgeImage(request, candidate, row)) return *std::move(no);
  if (request.gpu_count > 0) {
    return Refuse(row, Predicate::kGpu, "the worker has no GPU to give", "ask for gpu_count 0");
  }
  const bool visible = candidate.amounts_visible;
  const Resources& room = candidate.room;
  const Resources& taken = candidate.allocated;
  const uint64_t cpu_left = Left(room.cpu_millicores, taken.cpu_millicores);
  if (request.wanted.cpu_millicores > cpu_left) {
    return Short(row, Predicate::kCpu, "millicores", request.wanted.cpu_millicores, cpu_left,
                 visible);
  }
  const uint64_t memory_left = Left(room.memory_mb, taken.memory_mb);
  if (request.wanted.memory_mb > memory_left) {
    return Short(row, Predicate::kMemory, "MiB", request.wanted.memory_mb, memory_left, visible);
  }
  const uint64_t disk_left = Left(room.disk_mb, taken.disk_mb);
  if (request.wanted.disk_mb > disk_left) {
    return Short(row, Predicate::kDisk, "MiB", request.wanted.disk_mb, disk_left, visible);
  }
  row.eligible = true;
  row.score = Score(request, candidate);
  return row;
}

PlacementExplanation Explain(const PlacementRequest& request,
                             const std::vector<PlacementCandidate>& candidates) {
  PlacementExplanation explanation;
  bool image_in_reach = false;
  for (const PlacementCandidate& candidate : candidates) {
    PlacementRow row = Judge(request, candidate);
    const bool arch_fits =
        request.arch == Arch::kUnspecified || candidate.arch == request.arch;
    image_in_reach |= candidate.image_ready && candidate.paired && arch_fits;
    if (row.eligible) {
      ++explanation.eligible;
    } else {
      ++explanation.counts[std::string(NameOf(*row.predicate))];
    }
    explanation.rows.push_back(std::move(row));
  }
  std::stable_sort(explanation.rows.begin(), explanation.rows.end(),
                   [](const PlacementRow& a, const PlacementRow& b) {
                     if (a.eligible != b.eligible) return a.eligible;
                     return a.score > b.score;
                   });
  if (explanation.rows.size() > kMaxPlacementRows) explanation.rows.resize(kMaxPlacementRows);
  Conclude(request, image_in_reach, explanation);
  return explanation;
}

std::optional<size_t> Place(const PlacementRequest& request,
                            const std::vector<PlacementCandidate>& candidates, Rng& rng) {
  std::optional<size_t> best;
  double best_score = 0;
  uint64_t ties = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const PlacementRow row = Judge(request, candidates[i]);
    if (!row.eligible) continue;
    if (!best || row.score > best_score) {
      best = i;
      best_score = row.score;
      ties = 1;
    } else if (row.score == best_score && rng.Below(++ties) == 0) {
      best = i;
    }
  }
  return best;
}

}  // namespace bunker::controller
