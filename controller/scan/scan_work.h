// What is slow about scans, off the core's loop: reading advisories, matching inventories against
// them, and the documents that the store alone holds.
//
//   engine: row in phase `matching`, committed → watcher → matching pool → Scans::OnMatched()
//
// It keeps no state that a restart would lose: what is in phase `matching` is found again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/loop/worker_pool.h"
#include "controller/engine/core.h"
#include "controller/scan/advisories.h"
#include "controller/scan/package_index.h"
#include "controller/store/store.h"

namespace bunker::controller {

class ScanWork {
 public:
  struct Options {
    std::string advisories;                    // the operator's folder; "" = none
    absl::Duration period = absl::Minutes(2);  // of looking whether it has changed
  };

  // Both must outlive it. The store has had its first commit.
  ScanWork(Core& core, Store& store, Options options);
  // Ends what runs; nothing is called any more.
  ~ScanWork();
  ScanWork(const ScanWork&) = delete;
  ScanWork& operator=(const ScanWork&) = delete;

  // Begins to watch. Once; before the loop runs, or on it.
  void Start();

  // `done` runs once, on the loop. What the image's last scan brought; kNotFound: nothing yet.
  using Output = std::shared_ptr<const scan::v1::ScanOutput>;
  void ReadOutput(const std::string& image_id,
                  absl::AnyInvocable<void(absl::StatusOr<Output>)> done);

  // The same, for all images, whoever owns them: the caller filters. UNAVAILABLE while the index is
  // still being read after a start.
  using Hits = std::vector<PackageHit>;
  void FindPackages(PackageQuery query, absl::AnyInvocable<void(absl::StatusOr<Hits>)> done);

 private:
  void OnStarted(std::vector<std::string> with_documents,
                 const std::vector<std::pair<std::string, uint64_t>>& matching);
  void OnChanges(const ChangeSet& changes);
  void ArmTimer();
  void SubmitMatch(const std::string& image_id, uint64_t generation);
  void Match(const std::string& image_id, uint64_t generation);
  void CheckAdvisories();
  void FillIndex(const std::vector<std::string>& image_ids);
  absl::StatusOr<scan::v1::ScanOutput> ReadNow(const std::string& image_id);

  Core& core_;
  Store& store_;
  const Options options_;

  // On the loop.
  Core::WatchId watch_ = 0;
  Loop::TimerId timer_ = 0;
  bool started_ = false;

  // Of the matching pool's one thread.
  std::string stamp_;
  bool told_of_none_ = false;
  std::string why_none_;
  std::shared_ptr<const AdvisorySet> set_;

  PackageIndex index_;
  Mutex mutex_;
  bool index_filled_ ABSL_GUARDED_BY(mutex_) = false;

  // What was posted to the loop may come after the end.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  WorkerPool matching_;
  WorkerPool reading_;
};

}  // namespace bunker::controller
