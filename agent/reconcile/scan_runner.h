// ScanWork for real: one scan after the other on a pool of its own, results posted to the loop.
//
// On the loop only, but for what it does on the pool by itself.
#pragma once

#include <memory>
#include <string>

#include "agent/cache/image_store.h"
#include "agent/reconcile/scan_table.h"
#include "agent/scan/scanner.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class ScanRunner final : public ScanWork {
 public:
  // All must outlive the runner; `pool` must be shut down before the loop goes.
  ScanRunner(Loop& loop, WorkerPool& pool, ImageStore& images, Scanner& scanner)
      : loop_(loop), pool_(pool), images_(images), scanner_(scanner) {}

  void Scan(const link::v1::ScanAssignment& wanted, const std::string& recipe_digest,
            std::shared_ptr<CancelToken> cancel, OnDone on_done) override;

 private:
  Loop& loop_;
  WorkerPool& pool_;
  ImageStore& images_;
  Scanner& scanner_;
};

}  // namespace bunker::agent
