// Desired and actual images of this worker.
//
// One row per image id. A row has at most one job (pull → bake → publish); while it runs, only
// the latest desired row is kept, and it is looked at again when the job ends. Nothing here does
// I/O: slow work is asked of ImageWork, news go to ObservationSink.
//
// Not thread-safe: every call, callbacks included, comes from the agent's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// Where observations go (the link's sender).
class ObservationSink {
 public:
  virtual ~ObservationSink() = default;
  virtual void Upsert(const link::v1::Observation& row) = 0;  // row.version is set by the sink
  virtual void Remove(const std::string& name) = 0;
};

// The slow side of images. Callbacks run on the loop, `on_done` exactly once and last.
class ImageWork {
 public:
  virtual ~ImageWork() = default;
  using OnProgress = std::function<void(const link::v1::ImageObservation&)>;
  // READY or FAILED, with everything the controller is told.
  using OnDone = std::function<void(const link::v1::ImageObservation&)>;

  // `known` is what an earlier job of the same row resolved and baked, or empty.
  virtual void Ensure(const link::v1::ImageAssignment& wanted,
                      const link::v1::ImageObservation& known, std::shared_ptr<CancelToken> cancel,
                      OnProgress on_progress, OnDone on_done) = 0;
  // Looks up what the tag of an image that is READY names now; `on_done` runs on the loop, once.
  using OnTag = std::function<void(const link::v1::TagCheck&)>;
  virtual void LookUpTag(const link::v1::ImageAssignment& wanted, OnTag on_done) = 0;
  // Persists a READY row, so that a restart finds it; forgets it on Forget.
  virtual void Remember(const link::v1::ImageObservation& ready) = 0;
  virtual void Forget(const std::string& image_id) = 0;
  // Removes the baked file unless a bunker holds it; in the background.
  virtual void Evict(const std::string& recipe_digest) = 0;
};

class ImageTable {
 public:
  // Both must outlive the table. `on_change(image_id)` tells the bunkers that wait for an image.
  ImageTable(ImageWork& work, ObservationSink& sink,
             std::function<void(const std::string&)> on_change)
      : work_(work), sink_(sink), on_change_(std::move(on_change)) {}

  // A row that an earlier life of the agent made ready; to be called before the first Upsert.
  void Restore(const link::v1::ImageObservation& ready);

  void Upsert(const link::v1::ImageAssignment& wanted);
  void Remove(const std::string& image_id);

  // Null where no such row is wanted. Until the next call of a method that is not const.
  const link::v1::ImageAssignment* Wanted(const std::string& image_id) const;
  // The recipe of a READY image, or "".
  std::string ReadyRecipe(const std::string& image_id) const;
  // FAILED and not worth waiting for: the observation; else nullptr.
  const link::v1::ImageObservation* Failure(const std::string& image_id) const;

  // Rows whose file may be dropped where the disk is full: image id → recipe.
  std::map<std::string, std::string> Expendable() const;
  // Takes the file from such a row, which says EVICTED until its attempt is raised.
  void DropFile(const std::string& image_id);

  // A VM began or ended with it, at that time; told at most once a minute.
  void Touch(const std::string& image_id, int64_t at_unix_ms);

  // A bunker let go of `recipe_digest`: evicts it if no wanted row has it.
  void EvictIfUnwanted(const std::string& recipe_digest);

  // Cancels every job; their on_done still runs.
  void CancelAll();

 private:
  struct Row {
    link::v1::ImageAssignment wanted;
    link::v1::ImageObservation observed;
    bool is_wanted = false;
    std::shared_ptr<CancelToken> job;  // null: none runs
    bool looking_up_tag = false;
  };

  void Evaluate(const std::string& image_id);
  void StartJob(Row& row);
  void LookUpTag(Row& row);
  void OnJobDone(const std::string& image_id, const link::v1::ImageObservation& result);
  void Publish(const Row& row);

  ImageWork& work_;
  ObservationSink& sink_;
  const std::function<void(const std::string&)> on_change_;
  std::map<std::string, Row> rows_;
};

}  // namespace bunker::agent
