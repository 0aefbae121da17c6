// Which worker gets a bunker, and why the others do not. Pure: no state, no clock, no I/O.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/rng.h"
#include "controller/model/cache_entry.h"
#include "controller/model/image.h"
#include "controller/model/worker.h"

namespace bunker::controller {

// spread: the emptiest worker first. pack: the fullest one that still has room.
enum class PlacementStrategy { kSpread, kPack };
inline constexpr EnumName<PlacementStrategy> kPlacementStrategyNames[] = {
    {PlacementStrategy::kSpread, "spread"}, {PlacementStrategy::kPack, "pack"}};
inline std::span<const EnumName<PlacementStrategy>> EnumNames(PlacementStrategy) {
  return kPlacementStrategyNames;
}

struct PlacementOptions {
  double cpu_overcommit = 1.0;
  uint64_t memory_reserve_mb = 0;
  uint64_t disk_reserve_mb = 0;
  PlacementStrategy strategy = PlacementStrategy::kSpread;
};

// capacity × overcommit, less the reserves.
Resources RoomOf(const Resources& capacity, const PlacementOptions& options);

// The filters, in the order in which they are asked; the first that says no is the one reported.
// Whether a worker's lease has run out is its status: it is `offline` then.
enum class Predicate {
  kStatus,
  kArch,
  kGroup,
  kLabels,
  kNetwork,
  kBridges,
  kSnapshot,
  kImage,
  kGpu,
  kCpu,
  kMemory,
  kDisk
};
inline constexpr EnumName<Predicate> kPredicateNames[] = {
    {Predicate::kStatus, "status"},   {Predicate::kArch, "arch"},
    {Predicate::kGroup, "group"},     {Predicate::kLabels, "labels"},
    {Predicate::kNetwork, "network"}, {Predicate::kBridges, "bridges"},
    {Predicate::kSnapshot, "snapshot home"}, {Predicate::kImage, "image"},
    {Predicate::kGpu, "gpu"},         {Predicate::kCpu, "cpu"},
    {Predicate::kMemory, "memory"},   {Predicate::kDisk, "disk"}};
inline std::span<const EnumName<Predicate>> EnumNames(Predicate) { return kPredicateNames; }

// One worker that the tenant may use (scope was applied before), as placement sees it.
struct PlacementCandidate {
  std::string worker_id;
  std::string worker_name;
  WorkerStatus status = WorkerStatus::kOffline;
  Arch arch = Arch::kUnspecified;
  const std::map<std::string, std::string>* labels = nullptr;  // must outlive the call
  const std::set<std::string>* networks = nullptr;  // profiles it enforces; must outlive the call
  const std::set<std::string>* bridges = nullptr;              // must outlive the call; null: none
  Resources room;       // RoomOf its capacity
  Resources allocated;  // by bunkers and, of the disk, by cached images
  bool paired = false;  // a group holds it with the image (or lazy_pull with no such group at all)
  bool image_ready = false;
  std::optional<CacheStatus> cache_status;  // nothing: no entry
  std::optional<double> eta_s;              // of a bake that runs
  std::string cache_error;                  // "CODE: message" of a failed one
  uint32_t booting = 0;                     // bunkers that are coming up there
  double recent_failures = 0;               // of bunkers there; each counts less as time passes
  bool amounts_visible = true;              // false: shortfalls name the resource alone
};

struct PlacementRequest {
  std::string image_name;
  Arch arch = Arch::kUnspecified;  // kUnspecified: any
  bool lazy_pull = false;
  bool image_in_group = true;  // some group holds the image
  Resources wanted;            // the VM's overhead included
  uint32_t gpu_count = 0;
  uint64_t count = 1;  // bunkers that are to be placed, all or none; for Explain()
  std::map<std::string, std::string> worker_labels;
  std::string network_profile;     // "" = none to enforce
  std::set<std::string> bridges;   // that the worker must have
  // Where the tenant may attach to them; nothing: wherever they are.
  std::optional<std::set<std::string>> bridge_workers;
  // It can start there alone, whatever groups say; "" = anywhere.
  std::string snapshot_worker_id;
  PlacementStrategy strategy = PlacementStrategy::kSpread;
};

struct PlacementRow {
  std::string worker_id;
  std::string worker_name;
  bool eligible = false;
  // Of an eligible one; higher is better. How full a worker is whose amounts are hidden is not in
  // it.
  double score = 0;
  std::optional<Predicate> predicate;   // that said no
  std::string shortfall;                // what is missing
  std::string remedy;
  std::optional<double> eta_s;
};

struct PlacementExplanation {
  // As many as were asked for: eligible ones first, best first; then those nearest to it.
  std::vector<PlacementRow> rows;
  std::map<std::string, uint32_t> counts;     // refusals by predicate, of all workers
  uint32_t eligible = 0;                      // of all workers
  // Where no place is found for all: "WORKER_UNAVAILABLE" if a worker in reach has the image or
  // lazy_pull applies, else "NO_SUITABLE_WORKER".
  std::string error_code;
  std::string error_message;  // cause and remedy
};
inline constexpr size_t kMaxPlacementRows = 50;  // beside an error

// Whether `wanted` fits beside `taken` into `room`.
bool Fits(const Resources& wanted, const Resources& room, const Resources& taken);

// How good a worker is that passes all filters; higher is better. An image that is there outweighs
// everything; then how full the worker would be, by the strategy; then boots that compete there,
// and failures of late.
double Score(const PlacementRequest& request, const PlacementCandidate& candidate);

// Which filter says no, or nothing.
std::optional<Predicate> Refusal(const PlacementRequest& request,
                                 const PlacementCandidate& candidate);

// The row of one worker.
PlacementRow Judge(const PlacementRequest& request, const PlacementCandidate& candidate);

// Every worker's row, at most `max_rows` of them.
PlacementExplanation Explain(const PlacementRequest& request,
                             const std::vector<PlacementCandidate>& candidates,
                             size_t max_rows = kMaxPlacementRows);

// The index of the best eligible candidate, ties broken by `rng`; nothing where none is. Agrees
// with Explain(): it returns one iff `eligible` > 0. The plain scan that PlacementIndex::Find()
// is held against.
std::optional<size_t> Place(const PlacementRequest& request,
                            const std::vector<PlacementCandidate>& candidates, Rng& rng);

}  // namespace bunker::controller
