// What placement needs of the whole fleet, kept so that one decision looks at a few workers however
// many there are. Pure: it is told of changes, and has no clock, no I/O and no rows of its own.
//
// Every yes-or-no test (status, arch, group, scope, image, labels, bridges) is a set of bits over
// the workers, and so is having any room at all. A decision walks the intersection from a random
// worker on, and takes the best of the first kWindow that have the room asked for. Where fewer
// have it, it has seen them all: the only worker with room is found.
//
// Not thread-safe: belongs to the engine.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "common/base/rng.h"
#include "controller/model/worker.h"
#include "controller/policy/placement.h"
#include "controller/policy/slot_set.h"

namespace bunker::controller {

// Where a bunker may go.
struct PlacementQuery {
  std::string image_id;
  Ownership viewer;                    // the tenant
  std::vector<std::string> group_ids;  // that hold the image and that the tenant may use
  const PlacementRequest* request = nullptr;
};

struct PlacementChoice {
  std::string worker_id;
  bool image_ready = false;
  bool operator==(const PlacementChoice&) const = default;
};

class PlacementIndex {
 public:
  static constexpr size_t kWindow = 32;

  explicit PlacementIndex(const PlacementOptions& options) : options_(options) {}
  PlacementIndex(const PlacementIndex&) = delete;
  PlacementIndex& operator=(const PlacementIndex&) = delete;

  // ---- changes. Ids of workers that are not there (yet, or any more) are fine everywhere --------
  void PutWorker(const Worker& worker);
  void RemoveWorker(const std::string& worker_id);
  void Take(const std::string& worker_id, const Resources& room);
  // REQUIRES: so much was taken.
  void Give(const std::string& worker_id, const Resources& room);
  // By cached images, in bytes.
  void TakeCache(const std::string& worker_id, uint64_t bytes);
  void GiveCache(const std::string& worker_id, uint64_t bytes);
  void SetReady(const std::string& image_id, const std::string& worker_id, bool ready);
  void SetPaired(const std::string& group_id, const std::string& worker_id, bool paired);
  // Bunkers that are coming up there: +1, and -1 when they have.
  void AddBooting(const std::string& worker_id, int change);
  // A bunker failed there for a reason that may be the worker's.
  void NoteFailure(const std::string& worker_id, absl::Time now);

  // ---- reading ----------------------------------------------------------------------------------
  Resources Allocated(const std::string& worker_id) const;
  uint64_t CachedMb(const std::string& worker_id) const;
  // The worker's part of a candidate: all but what hangs on image and group. It points into the
  // index, and is good until the next change.
  PlacementCandidate Candidate(const std::string& worker_id, absl::Time now) const;

  bool IsReady(const std::string& image_id, const std::string& worker_id) const;
  // Whether one of the groups holds the worker.
  bool IsPaired(const std::vector<std::string>& group_ids, const std::string& worker_id) const;

  // The worker for a bunker, ties broken by `rng`; nothing exactly where Explain() over all workers
  // finds none eligible.
  std::optional<PlacementChoice> Find(const PlacementQuery& query, absl::Time now, Rng& rng) const;

  // Why the two differ, "" where they hold the same (failures apart, which no row remembers).
  std::string Difference(const PlacementIndex& other) const;

 private:
  struct Slot {
    std::string id;        // "": free
    bool present = false;  // PutWorker() told of it
    std::string name;
    WorkerStatus status = WorkerStatus::kOffline;
    Arch arch = Arch::kUnspecified;
    std::string reach;  // the key of the set that says who may use it; "" = nobody
    std::map<std::string, std::string> labels;
    std::set<std::string> networks;
    std::set<std::string> bridges;
    Resources room;
    Resources allocated;
    uint64_t cached_bytes = 0;
    uint32_t booting = 0;
    uint32_t mentions = 0;  // sets that hold it by image and group
    double failures = 0;
    absl::Time failed_at = absl::InfinitePast();

    Resources Taken() const;
  };
  using Sets = std::unordered_map<std::string, SlotSet>;
  // The tests of one walk: a worker is in one of each list of `any`, and in each of `all`.
  struct Filter {
    std::vector<std::vector<const SlotSet*>> any;
    std::vector<const SlotSet*> all;
    const SlotSet* none = nullptr;
    uint64_t Word(size_t word) const;
  };

  uint32_t SlotOf(const std::string& worker_id);
  const Slot* FindSlot(const std::string& worker_id) const;
  void FreeIfUnused(uint32_t slot);
  void SetLabels(uint32_t slot, const std::map<std::string, std::string>& labels);
  // The worker is in one of `sets` for each of these; `kept` is what it was in.
  static void SetMembers(Sets& sets, uint32_t slot, const std::set<std::string>& now,
                         std::set<std::string>* kept);
  void UpdateRoomy(uint32_t slot);
  static void Change(Sets& sets, const std::string& key, uint32_t slot, bool in);
  static const SlotSet& In(const Sets& sets, const std::string& key);
  double FailuresAt(const Slot& slot, absl::Time now) const;
  // False: some label or bridge is on no worker.
  bool Narrow(const PlacementQuery& query, Filter& filter) const;
  std::optional<uint32_t> Walk(const Filter& filter, const PlacementRequest& request,
                               bool image_ready, absl::Time now, Rng& rng) const;

  const PlacementOptions options_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::unordered_map<std::string, uint32_t> slot_of_;
  SlotSet online_;
  SlotSet roomy_;  // room for the smallest bunker there can be
  SlotSet arch_[3];
  Sets reach_;   // "shared", "partner:<id>", "tenant:<id>"
  Sets labels_;  // "<key>=<value>", length first
  Sets networks_;  // by profile
  Sets bridges_;   // by name
  Sets ready_;   // by image
  Sets paired_;  // by group
};

}  // namespace bunker::controller
