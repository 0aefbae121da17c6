// Desired and actual bunkers of this worker.
//
// One row per bunker id, with at most one piece of work under way. States never go backwards
// within an incarnation; STOPPED and FAILED are final for it. Nothing here does I/O: slow work is
// asked of BunkerWork, news go to ObservationSink.
//
// Not thread-safe: every call, callbacks included, comes from the agent's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/reconcile/image_table.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

// The slow side of bunkers. Callbacks run on the loop.
class BunkerWork {
 public:
  virtual ~BunkerWork() = default;
  // RUNNING, or FAILED with its reason and nothing left behind; exactly once.
  using OnStarted = std::function<void(const link::v1::BunkerObservation&)>;
  // Everything of it is gone from the host; exactly once.
  using OnStopped = std::function<void()>;

  virtual void Start(const link::v1::BunkerAssignment& wanted, const std::string& recipe_digest,
                     std::shared_ptr<CancelToken> cancel, OnStarted on_started) = 0;
  // Ends the VM (politely first) and removes its disk, journal row and sockets.
  virtual void Stop(const std::string& bunker_id, uint32_t incarnation, OnStopped on_stopped) = 0;
  // Nobody asks after that incarnation any more: its end need not be remembered. Repeatable.
  virtual void Forget(const std::string& bunker_id, uint32_t incarnation) = 0;
};

class BunkerTable {
 public:
  // All must outlive the table.
  BunkerTable(BunkerWork& work, ImageTable& images, ObservationSink& sink)
      : work_(work), images_(images), sink_(sink) {}

  // A VM that outlived an earlier agent and was adopted (RUNNING), or whose end has to be told
  // (FAILED or STOPPED, already cleaned up). To be called before the first Upsert.
  void Restore(const link::v1::BunkerAssignment& wanted,
               const link::v1::BunkerObservation& observed, const std::string& recipe_digest);

  void Upsert(const link::v1::BunkerAssignment& wanted);
  void Remove(const std::string& bunker_id);

  // Whether a VM has that base disk or is about to get it.
  bool Uses(const std::string& recipe_digest) const;

  // Looks again at the rows that wait for `image_id`.
  void OnImageChange(const std::string& image_id);

  // The VM ended by itself. Ignored for another incarnation.
  void OnExit(const std::string& bunker_id, uint32_t incarnation, bool clean,
              const std::string& reason);

  // An exec began or ended; `at_unix_ms` is the time of it.
  void OnActivity(const std::string& bunker_id, uint32_t incarnation, uint32_t active_execs,
                  int64_t at_unix_ms);

  // What happened in its network, newest first; told where it is news.
  void OnNetwork(const std::string& bunker_id, uint32_t incarnation,
                 const std::vector<link::v1::NetworkEvent>& events);

  // The first command in it took so long; for the row's timings.
  void OnFirstExec(const std::string& bunker_id, uint32_t incarnation, double ms);

 private:
  enum class Phase { kAbsent, kStarting, kRunning, kStopping };
  struct Row {
    link::v1::BunkerAssignment wanted;
    link::v1::BunkerObservation observed;
    bool is_wanted = false;
    Phase phase = Phase::kAbsent;  // what is on the host
    std::string recipe_digest;     // held while the phase is not kAbsent
    std::shared_ptr<CancelToken> start;
    absl::Duration wanted_at;  // monotonic; when this incarnation was first asked for
  };

  // The running row of that incarnation, or null.
  Row* FindRunning(const std::string& bunker_id, uint32_t incarnation);
  void Evaluate(const std::string& bunker_id);
  void EvaluateAbsent(const std::string& bunker_id, Row& row);
  void BeginStart(Row& row, const std::string& recipe_digest);
  void BeginStop(Row& row);
  void Observe(Row& row, link::v1::BunkerObservation::Status status, const std::string& reason);
  void Publish(const Row& row);

  BunkerWork& work_;
  ImageTable& images_;
  ObservationSink& sink_;
  std::map<std::string, Row> rows_;
};

}  // namespace bunker::agent
