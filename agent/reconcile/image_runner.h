// ImageWork for real: jobs on a bounded pool, results posted to the loop.
//
// On the loop only, but for what it does on the pool by itself.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/journal/journal.h"
#include "agent/reconcile/image_job.h"
#include "agent/reconcile/image_table.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class ImageRunner final : public ImageWork {
 public:
  // All must outlive the runner; both pools must be shut down before the loop goes. What is deleted
  // has a pool of its own: it must not wait behind slow pulls, whose disk it frees.
  ImageRunner(Loop& loop, WorkerPool& pool, WorkerPool& collect_pool, Journal& journal,
              ImageJobParts parts)
      : loop_(loop), pool_(pool), collect_pool_(collect_pool), journal_(journal), parts_(parts) {}

  void Ensure(const link::v1::ImageAssignment& wanted, const link::v1::ImageObservation& known,
              std::shared_ptr<CancelToken> cancel, OnProgress on_progress, OnDone on_done) override;
  void LookUpTag(const link::v1::ImageAssignment& wanted, OnTag on_done) override;
  void Remember(const link::v1::ImageObservation& ready) override;
  void Forget(const std::string& image_id) override;
  void Evict(const std::string& recipe_digest) override;

  // What else is kept of a baked file goes with it. On the loop; before the first Evict.
  void OnEvicted(std::function<void(const std::string& recipe_digest)> on_evicted) {
    on_evicted_ = std::move(on_evicted);
  }

  // Removes, in the background, blobs that no baked image was made from and that nobody has used
  // for an hour: what failed, cancelled and evicted bakes left. To be called at start as well.
  void CollectBlobs();

 private:
  Loop& loop_;
  WorkerPool& pool_;
  WorkerPool& collect_pool_;
  Journal& journal_;
  const ImageJobParts parts_;
  std::function<void(const std::string&)> on_evicted_ = [](const std::string&) {};
};

}  // namespace bunker::agent
