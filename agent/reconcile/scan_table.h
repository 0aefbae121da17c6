// Scans that the controller wants of images on this worker.
//
// One row per image. A scan begins once its image is ready, runs once a generation, and its answer
// stays as an observation until the controller, which has stored it, drops the assignment. Nothing
// is journalled but the assignment: a new agent scans again.
//
// Not thread-safe: every call, callbacks included, comes from the agent's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "agent/reconcile/image_table.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// The slow side of scans. `on_done` runs on the loop, exactly once.
class ScanWork {
 public:
  virtual ~ScanWork() = default;
  using OnDone = std::function<void(const link::v1::ScanObservation&)>;

  // `recipe_digest`: of a published image, which is pinned until `on_done`.
  virtual void Scan(const link::v1::ScanAssignment& wanted, const std::string& recipe_digest,
                    std::shared_ptr<CancelToken> cancel, OnDone on_done) = 0;
};

class ScanTable {
 public:
  struct Images {
    std::function<std::string(const std::string& image_id)> recipe_of;  // "" = not ready
    // The file is not read any more: it may be unwanted since.
    std::function<void(const std::string& recipe_digest)> let_go;
  };

  // All must outlive the table.
  ScanTable(ScanWork& work, ObservationSink& sink, Images images)
      : work_(work), sink_(sink), images_(std::move(images)) {}

  void Upsert(const link::v1::ScanAssignment& wanted);
  void Remove(const std::string& image_id);
  // The image became ready, or is no more.
  void OnImageChange(const std::string& image_id);

 private:
  struct Row {
    link::v1::ScanAssignment wanted;
    bool is_wanted = false;
    uint64_t done_generation = 0;      // told of; 0: none
    std::shared_ptr<CancelToken> job;  // null: none runs
  };

  void Evaluate(const std::string& image_id);
  void OnJobDone(const std::string& image_id, const link::v1::ScanObservation& result);

  ScanWork& work_;
  ObservationSink& sink_;
  const Images images_;
  std::map<std::string, Row> rows_;
};

}  // namespace bunker::agent
