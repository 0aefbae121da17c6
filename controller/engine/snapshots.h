// Snapshots of bunkers' disks: taking, finding, removing, and what their workers say of them.
//
// A part of the engine, under its rules: pure, on the core's loop, everything through turns. A row
// says what is to be on the worker (a file, or none any more); the worker's answers move it on.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "controller/engine/engine.h"
#include "controller/engine/specs.h"
#include "controller/engine/turn.h"
#include "controller/model/link_rows.h"
#include "controller/model/snapshot.h"

namespace bunker::controller {

class Snapshots {
 public:
  // Both must outlive it.
  Snapshots(Engine& engine, Engine::State& state) : engine_(engine), state_(state) {}

  struct TakeSpec {
    std::string name;     // "": one is made
    bool memory = false;  // of one that runs or is paused alone
  };

  // Once, after the tables are loaded.
  void Load();

  // ---- of the API -------------------------------------------------------------------------------

  // BUNKER_NOT_RUNNING where there is no disk with anything on it, WORKER_UNAVAILABLE where its
  // worker is away, RESOURCE_IN_USE while another is being taken of it, BUNKER_QUOTA_EXCEEDED at
  // the tenant's cap, SLUG_CONFLICT.
  absl::StatusOr<RowPtr<Snapshot>> Take(Turn& turn, const Caller& caller,
                                        const std::string& bunker_ref, const TakeSpec& wanted);

  // Deletes the bunker once a snapshot of it is ready; at once where it has no disk to take one of.
  // Should the snapshot fail, the bunker stays, and its row says why. Repeatable.
  absl::StatusOr<RowPtr<Bunker>> TakeAndEnd(Turn& turn, const Caller& caller,
                                            const std::string& bunker_ref,
                                            std::optional<uint32_t> incarnation);

  // By id, or by name in the caller's tenant. Who sees a bunker sees its snapshots.
  absl::StatusOr<RowPtr<Snapshot>> Find(const Caller& caller, const std::string& ref) const;
  // `bunker`: of that one alone; "" = any.
  Page<Snapshot> List(const Caller& caller, const std::string& bunker, const PageSpec& page) const;

  // Repeatable until the file is gone. RESOURCE_IN_USE while a bunker awaits its disk of it.
  absl::StatusOr<RowPtr<Snapshot>> Delete(Turn& turn, const Caller& caller,
                                          const std::string& ref);

  // Puts the snapshot that `spec` names in the place of image, home and disk. RESOURCE_IN_USE where
  // it is still being taken or removed, VALIDATION_ERROR where it failed or is larger.
  absl::StatusOr<RowPtr<Image>> Resolve(const Caller& caller, CreateBunkerSpec& spec) const;

  // ---- of the link and of time ------------------------------------------------------------------

  void OnObservation(Turn& turn, const std::string& worker_id, const SnapshotObservation& seen);
  void OnObservationRemoved(Turn& turn, const std::string& worker_id, const std::string& id);
  void OnRejection(Turn& turn, const std::string& worker_id, const std::string& id,
                   uint64_t version, const std::string& message);
  void Tick(Turn& turn);
  // The worker is no more, and its files with it.
  void FailAllOn(Turn& turn, const std::string& worker_id);

 private:
  absl::StatusOr<RowPtr<Snapshot>> FindToUse(const Caller& caller, const std::string& ref) const;
  absl::StatusOr<RowPtr<Snapshot>> TakeOf(Turn& turn, const Bunker& bunker,
                                          const TakeSpec& wanted);
  absl::Status CheckMemory(const Bunker& bunker) const;
  absl::StatusOr<std::string> NameFor(const Bunker& bunker, const std::string& name) const;
  absl::Status CheckCap(const Bunker& bunker, bool memory) const;
  absl::Status CheckTakeable(const Bunker& bunker) const;
  bool MaySee(const Caller& caller, const Snapshot& row) const;
  void Fail(Turn& turn, Snapshot row, const std::string& code, const std::string& message,
            bool left_behind);
  void Forget(Turn& turn, const Snapshot& row);
  // The bunker that was to end once the snapshot is ready.
  void TellBunker(Turn& turn, const Snapshot& row, const std::string& failure);
  RowPtr<Snapshot> Put(Turn& turn, Snapshot row);
  void TouchEntry(Turn& turn, const std::string& entry_key);

  Engine& engine_;
  Engine::State& state_;
};

}  // namespace bunker::controller
