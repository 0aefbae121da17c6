#include "controller/policy/placement.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/log.h"

namespace bunker::controller {
namespace {

constexpr uint64_t kMostPlaces = 1'000'000;  // of one worker: so that sums can't overflow
constexpr double kLocality = 10;
constexpr double kPerBoot = 0.05;
constexpr double kMaxBoots = 0.5;
constexpr double kPerFailure = 0.25;
constexpr double kMaxFailures = 1;

uint64_t Left(uint64_t room, uint64_t taken) { return room > taken ? room - taken : 0; }

struct Reason {
  std::string shortfall;
  std::string remedy;
};

Reason WhyStatus(const PlacementCandidate& candidate) {
  return {"the worker is " + std::string(NameOf(candidate.status)),
          candidate.status == WorkerStatus::kDraining ? "resume the worker"
                                                      : "start the agent on the worker"};
}

Reason WhyArch(const PlacementRequest& request, const PlacementCandidate& candidate) {
  return {"the image is for " + std::string(NameOf(request.arch)) + ", the worker is " +
              std::string(NameOf(candidate.arch)),
          "use an image or a worker of the other architecture"};
}

Reason WhyGroup(const PlacementRequest& request) {
  return {request.image_in_group ? "no availability group holds both the image and the worker"
                                 : "no availability group holds the image",
          "attach the image and the worker to one availability group"};
}

// The first label that the worker lacks, or null.
const std::pair<const std::string, std::string>* MissingLabel(const PlacementRequest& request,
                                                              const PlacementCandidate& candidate) {
  for (const auto& wanted : request.worker_labels) {
    if (candidate.labels == nullptr) return &wanted;
    const auto it = candidate.labels->find(wanted.first);
    if (it == candidate.labels->end() || it->second != wanted.second) return &wanted;
  }
  return nullptr;
}

Reason WhyLabels(const PlacementRequest& request, const PlacementCandidate& candidate) {
  const auto& [label, value] = *MissingLabel(request, candidate);
  const bool has = candidate.labels != nullptr && candidate.labels->count(label) > 0;
  return {"the worker's label " + label + " is " + (has ? candidate.labels->at(label) : "not set"),
          "drop worker_labels." + label + " or label a worker " + label + "=" + value};
}

bool Enforces(const PlacementRequest& request, const PlacementCandidate& candidate) {
  return request.network_profile.empty() ||
         (candidate.networks != nullptr && candidate.networks->count(request.network_profile) > 0);
}

// The first bridge that the worker lacks, or null. One that is not open to the tenant is not there.
const std::string* MissingBridge(const PlacementRequest& request,
                                 const PlacementCandidate& candidate) {
  for (const std::string& bridge : request.bridges) {
    if (candidate.bridges == nullptr || candidate.bridges->count(bridge) == 0) return &bridge;
    if (request.bridge_workers && request.bridge_workers->count(candidate.worker_id) == 0)
      return &bridge;
  }
  return nullptr;
}

// A snapshot's disk goes on where it is, whatever groups say by now.
bool IsPaired(const PlacementRequest& request, const PlacementCandidate& candidate) {
  return candidate.paired || !request.snapshot_worker_id.empty();
}

Reason WhyImage(const PlacementCandidate& candidate) {
  const std::string lazy = ", or set lazy_pull on the image";
  if (!candidate.cache_status) return {"the image is not on the worker", "warm the image" + lazy};
  switch (*candidate.cache_status) {
    case CacheStatus::kFailed:
      return {"the image failed there: " + candidate.cache_error,
              "fix the cause and warm the image again"};
    case CacheStatus::kEvicted:
      return {"the image was evicted there", "warm the image" + lazy};
    case CacheStatus::kPending:
    case CacheStatus::kBuilding:
    case CacheStatus::kReady:
      break;
  }
  return {"the image is " + std::string(NameOf(*candidate.cache_status)) + " there",
          "wait until it is ready" + lazy};
}

Reason WhyRoom(Predicate predicate, const PlacementRequest& request,
               const PlacementCandidate& candidate) {
  uint64_t Resources::*part = predicate == Predicate::kCpu      ? &Resources::cpu_millicores
                              : predicate == Predicate::kMemory ? &Resources::memory_mb
                                                                : &Resources::disk_mb;
  const std::string what(NameOf(predicate));
  const std::string unit = predicate == Predicate::kCpu ? "millicores" : "MiB";
  const std::string amounts =
      candidate.amounts_visible
          ? ": " + std::to_string(Left(candidate.room.*part, candidate.allocated.*part)) + " " +
                unit + " left, " + std::to_string(request.wanted.*part) + " needed"
          : "";
  return {"not enough " + what + amounts,
          "ask for less " + what + ", end other bunkers, or add workers"};
}

Reason Why(Predicate predicate, const PlacementRequest& request,
           const PlacementCandidate& candidate) {
  switch (predicate) {
    case Predicate::kStatus:
      return WhyStatus(candidate);
    case Predicate::kArch:
      return WhyArch(request, candidate);
    case Predicate::kGroup:
      return WhyGroup(request);
    case Predicate::kLabels:
      return WhyLabels(request, candidate);
    case Predicate::kNetwork:
      return {"the worker can't enforce the network profile " + request.network_profile,
              "use the profile isolated, or look in the worker's log for what it lacks"};
    case Predicate::kBridges:
      return {"the worker has no bridge " + *MissingBridge(request, candidate),
              "attach to a bridge that a worker reports"};
    case Predicate::kSnapshot:
      return {"the snapshot's home is another worker",
              "wait for that worker, or create from the image"};
    case Predicate::kImage:
      return WhyImage(candidate);
    case Predicate::kGpu:
      return {"the worker has no GPU to give", "ask for gpu_count 0"};
    case Predicate::kCpu:
    case Predicate::kMemory:
    case Predicate::kDisk:
      return WhyRoom(predicate, request, candidate);
  }
  return {};
}

PlacementRow RowOf(const PlacementRequest& request, const PlacementCandidate& candidate,
                   std::optional<Predicate> refusal) {
  PlacementRow row;
  row.worker_id = candidate.worker_id;
  row.worker_name = candidate.worker_name;
  row.eligible = !refusal;
  row.predicate = refusal;
  if (refusal) {
    Reason why = Why(*refusal, request, candidate);
    row.shortfall = std::move(why.shortfall);
    row.remedy = std::move(why.remedy);
    if (*refusal == Predicate::kImage) row.eta_s = candidate.eta_s;
  } else if (candidate.amounts_visible) {
    row.score = Score(request, candidate);
  } else {
    row.score = candidate.image_ready ? kLocality : 0;
  }
  return row;
}

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(whole);
}

// How many such bunkers the worker can take. REQUIRES: `wanted` is not zero.
uint64_t Places(const Resources& wanted, const PlacementCandidate& candidate) {
  const auto of = [](uint64_t room, uint64_t taken, uint64_t one) {
    return one == 0 ? ~uint64_t{0} : Left(room, taken) / one;
  };
  const Resources& room = candidate.room;
  const Resources& taken = candidate.allocated;
  return std::min({of(room.cpu_millicores, taken.cpu_millicores, wanted.cpu_millicores),
                   of(room.memory_mb, taken.memory_mb, wanted.memory_mb),
                   of(room.disk_mb, taken.disk_mb, wanted.disk_mb), kMostPlaces});
}

void Conclude(const PlacementRequest& request, bool image_in_reach, uint64_t places,
              PlacementExplanation& explanation) {
  if (places >= request.count) return;
  if (explanation.eligible > 0) {
    explanation.error_code = "WORKER_UNAVAILABLE";
    explanation.error_message =
        "only " + std::to_string(places) + " of " + std::to_string(request.count) +
        " bunkers have a place, and all or none are created: ask for fewer, end other bunkers or "
        "add workers";
    return;
  }
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

bool Fits(const Resources& wanted, const Resources& room, const Resources& taken) {
  return wanted.cpu_millicores <= Left(room.cpu_millicores, taken.cpu_millicores) &&
         wanted.memory_mb <= Left(room.memory_mb, taken.memory_mb) &&
         wanted.disk_mb <= Left(room.disk_mb, taken.disk_mb);
}

// The tightest of the three resources counts, so that a worker full of memory is not chosen for its
// free cores.
double Score(const PlacementRequest& request, const PlacementCandidate& candidate) {
  const Resources& room = candidate.room;
  const Resources& taken = candidate.allocated;
  const double used =
      std::max({Share(taken.cpu_millicores + request.wanted.cpu_millicores, room.cpu_millicores),
                Share(taken.memory_mb + request.wanted.memory_mb, room.memory_mb),
                Share(taken.disk_mb + request.wanted.disk_mb, room.disk_mb)});
  const double fit = request.strategy == PlacementStrategy::kPack ? used : 1.0 - used;
  return (candidate.image_ready ? kLocality : 0.0) + fit -
         std::min(kMaxBoots, kPerBoot * candidate.booting) -
         std::min(kMaxFailures, kPerFailure * candidate.recent_failures);
}

std::optional<Predicate> Refusal(const PlacementRequest& request,
                                 const PlacementCandidate& candidate) {
  if (candidate.status != WorkerStatus::kOnline) return Predicate::kStatus;
  if (request.arch != Arch::kUnspecified && candidate.arch != request.arch) {
    return Predicate::kArch;
  }
  if (!IsPaired(request, candidate)) return Predicate::kGroup;
  if (MissingLabel(request, candidate) != nullptr) return Predicate::kLabels;
  if (!Enforces(request, candidate)) return Predicate::kNetwork;
  if (MissingBridge(request, candidate) != nullptr) return Predicate::kBridges;
  if (!request.snapshot_worker_id.empty() && candidate.worker_id != request.snapshot_worker_id) {
    return Predicate::kSnapshot;
  }
  if (!candidate.image_ready && !request.lazy_pull) return Predicate::kImage;
  if (request.gpu_count > 0) return Predicate::kGpu;
  const Resources& room = candidate.room;
  const Resources& taken = candidate.allocated;
  const Resources& wanted = request.wanted;
  if (wanted.cpu_millicores > Left(room.cpu_millicores, taken.cpu_millicores)) {
    return Predicate::kCpu;
  }
  if (wanted.memory_mb > Left(room.memory_mb, taken.memory_mb)) return Predicate::kMemory;
  if (wanted.disk_mb > Left(room.disk_mb, taken.disk_mb)) return Predicate::kDisk;
  return std::nullopt;
}

PlacementRow Judge(const PlacementRequest& request, const PlacementCandidate& candidate) {
  return RowOf(request, candidate, Refusal(request, candidate));
}

PlacementExplanation Explain(const PlacementRequest& request,
                             const std::vector<PlacementCandidate>& candidates, size_t max_rows) {
  struct Verdict {
    const PlacementCandidate* candidate;
    std::optional<Predicate> refusal;
    double score;
  };
  PlacementExplanation explanation;
  bool image_in_reach = false;
  std::vector<Verdict> verdicts;
  verdicts.reserve(candidates.size());
  uint64_t places = 0;
  uint32_t refusals[std::size(kPredicateNames)] = {};
  for (const PlacementCandidate& candidate : candidates) {
    const std::optional<Predicate> refusal = Refusal(request, candidate);
    const bool arch_fits =
        request.arch == Arch::kUnspecified || candidate.arch == request.arch;
    image_in_reach |= candidate.image_ready && IsPaired(request, candidate) && arch_fits;
    if (refusal) {
      ++refusals[static_cast<size_t>(*refusal)];
    } else {
      ++explanation.eligible;
      places += Places(request.wanted, candidate);
    }
    verdicts.push_back({&candidate, refusal, refusal ? 0 : Score(request, candidate)});
  }
  for (const auto& [predicate, name] : kPredicateNames) {
    const uint32_t count = refusals[static_cast<size_t>(predicate)];
    if (count > 0) explanation.counts[std::string(name)] = count;
  }
  // The later the filter that says no, the nearer the worker is.
  std::stable_sort(verdicts.begin(), verdicts.end(), [](const Verdict& a, const Verdict& b) {
    if (a.refusal.has_value() != b.refusal.has_value()) return !a.refusal;
    return a.refusal ? *a.refusal > *b.refusal : a.score > b.score;
  });
  if (verdicts.size() > max_rows) verdicts.resize(max_rows);
  for (const Verdict& one : verdicts) {
    explanation.rows.push_back(RowOf(request, *one.candidate, one.refusal));
  }
  Conclude(request, image_in_reach, places, explanation);
  return explanation;
}

std::optional<size_t> Place(const PlacementRequest& request,
                            const std::vector<PlacementCandidate>& candidates, Rng& rng) {
  std::optional<size_t> best;
  double best_score = 0;
  uint64_t ties = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (Refusal(request, candidates[i])) continue;
    const double score = Score(request, candidates[i]);
    if (!best || score > best_score) {
      best = i;
      best_score = score;
      ties = 1;
    } else if (score == best_score && rng.Below(++ties) == 0) {
      best = i;
    }
  }
  return best;
}

}  // namespace bunker::controller
