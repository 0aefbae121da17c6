// Keeps the agent's files within its share of the disk, and tells the controller how full it is.
//
// Above the high mark it drops what costs least to have again, least recently used first, down to
// the low mark: first what is left of cancelled pulls and blobs that nobody reads, then baked
// images that no group wants and no VM uses. Never anything else: what is wanted is the
// controller's to decide, which hears how full the disk is.
//
// On the loop only; measuring and deleting run on the pool.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "agent/cache/blob_store.h"
#include "agent/cache/disk_usage.h"
#include "agent/cache/image_store.h"
#include "agent/reconcile/image_table.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class CacheKeeper {
 public:
  struct Options {
    std::string state_dir;
    uint64_t cap_bytes = 0;  // the operator's bound; 0: none
    uint32_t high_percent = 90;
    uint32_t low_percent = 80;
    absl::Duration period = absl::Seconds(10);
  };

  // All must outlive the keeper; `pool` must be shut down before the loop goes. `in_use(recipe)`:
  // whether a VM runs from it or is about to.
  CacheKeeper(Loop& loop, WorkerPool& pool, BlobStore& blobs, ImageStore& images, ImageTable& table,
              ObservationSink& sink, std::function<bool(const std::string&)> in_use,
              Options options);
  ~CacheKeeper();
  CacheKeeper(const CacheKeeper&) = delete;
  CacheKeeper& operator=(const CacheKeeper&) = delete;

  // Looks now, and from then on every period.
  void Start();

 private:
  struct Bounds {
    uint64_t high_bytes = 0;
    uint64_t low_bytes = 0;
  };

  Bounds BoundsOf(const DiskUsage& usage) const;
  void Check();
  void Arm();
  // On the pool: drops blobs where that is called for.
  absl::StatusOr<DiskUsage> MeasureAndDrop();
  void DropBlobs(DiskUsage& usage, uint64_t target_bytes);
  void OnMeasured(const absl::StatusOr<DiskUsage>& measured);
  void DropImages(uint64_t used_bytes, const Bounds& bounds);
  void Publish(const DiskUsage& usage);

  Loop& loop_;
  WorkerPool& pool_;
  BlobStore& blobs_;
  ImageStore& images_;
  ImageTable& table_;
  ObservationSink& sink_;
  const std::function<bool(const std::string&)> in_use_;
  const Options options_;

  bool full_ = false;  // passed the high mark, and not below the low one since
  DiskUsage told_;
  bool has_told_ = false;
  Loop::TimerId timer_ = 0;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bunker::agent
