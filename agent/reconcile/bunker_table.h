// Desired and actual bunkers of this worker.
//
// One row per bunker id, with at most one piece of work under way. States never go backwards
// within an incarnation; STOPPED and FAILED are final for it. Nothing here does I/O: slow work is
// asked of BunkerWork, news go to ObservationSink.
//
// Not thread-safe: every call, callbacks included, comes from the agent's loop.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
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
  // Ends the VM (politely first), if there is one, and removes all that is that incarnation's own;
  // and the disk that outlives incarnations, unless `keep_disk`.
  virtual void Stop(const std::string& bunker_id, uint32_t incarnation, bool keep_disk,
                    OnStopped on_stopped) = 0;
  // Pauses a VM that runs, or lets it go on, its clock set; what is so already is fine. An error:
  // it is as it was, or not known; ask again. Exactly once.
  using OnPaused = std::function<void(const absl::Status&)>;
  virtual void SetPaused(const std::string& bunker_id, uint32_t incarnation, bool paused,
                         OnPaused on_paused) = 0;
  // Copies the disk to a snapshot: of the VM that is up, which stands still for a
  // moment and goes on, or else what was kept of one. Exactly once.
  struct Copied {
    absl::Status status;
    uint64_t size_bytes = 0;
    bool is_vm_as_before = true;  // false: it may be paused, and has to be looked after
  };
  using OnCopied = std::function<void(const Copied&)>;
  struct Copy {
    std::string snapshot_id;
    bool memory = false;  // that, too: of a VM that is up alone
  };
  virtual void CopyDisk(const std::string& bunker_id, const Copy& wanted,
                        std::shared_ptr<CancelToken> cancel, OnCopied on_copied) = 0;
  // Calls back on the loop after a while, before asking again.
  virtual void Later(std::function<void()> again) = 0;
  // Nobody asks after that incarnation any more: its end need not be remembered. Repeatable.
  virtual void Forget(const std::string& bunker_id, uint32_t incarnation) = 0;
};

class BunkerTable {
 public:
  // All must outlive the table.
  BunkerTable(BunkerWork& work, ImageTable& images, ObservationSink& sink)
      : work_(work), images_(images), sink_(sink) {}

  // A VM that outlived an earlier agent and was adopted (RUNNING or PAUSED), or whose end has to be
  // told (FAILED or STOPPED, already cleaned up). To be called before the first Upsert.
  void Restore(const link::v1::BunkerAssignment& wanted,
               const link::v1::BunkerObservation& observed, const std::string& recipe_digest);

  void Upsert(const link::v1::BunkerAssignment& wanted);
  void Remove(const std::string& bunker_id);

  // Has the disk of that bunker copied once nothing else is under way with it, and before it is
  // ended. BUNKER_NOT_RUNNING where it has none; `on_copied` exactly once, maybe at once.
  void CopyDisk(const std::string& bunker_id, BunkerWork::Copy wanted,
                std::shared_ptr<CancelToken> cancel, BunkerWork::OnCopied on_copied);

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

  void OnUsage(const std::string& bunker_id, uint32_t incarnation, const link::v1::Usage& usage);

  void OnMain(const std::string& bunker_id, uint32_t incarnation,
              const link::v1::MainState& state);

  // The first command in it took so long; for the row's timings.
  void OnFirstExec(const std::string& bunker_id, uint32_t incarnation, double ms);

 private:
  enum class Phase { kAbsent, kStarting, kRunning, kSwitching, kCopying, kStopping };
  struct Copy {
    BunkerWork::Copy wanted;
    std::shared_ptr<CancelToken> cancel;
    BunkerWork::OnCopied done;
  };
  struct Exit {
    bool clean = false;
    std::string reason;
  };
  struct Row {
    link::v1::BunkerAssignment wanted;
    link::v1::BunkerObservation observed;
    bool is_wanted = false;
    Phase phase = Phase::kAbsent;  // what is on the host
    std::string recipe_digest;     // held while the phase is not kAbsent
    std::shared_ptr<CancelToken> start;
    bool has_disk = false;      // there may be a disk that outlives incarnations
    bool pause_known = true;    // false: adopted, and maybe not as paused as its row says
    std::optional<Exit> exit;   // of a VM that ended while something else was under way
    std::deque<Copy> copies;    // asked for, and not begun
    Phase beneath = Phase::kAbsent;  // of kCopying: kRunning or kAbsent
    absl::Duration wanted_at;  // monotonic; when this incarnation was first asked for
  };

  static bool IsUp(const Row& row);
  // The row of that incarnation whose VM is up, or null.
  Row* FindRunning(const std::string& bunker_id, uint32_t incarnation);
  void Evaluate(const std::string& bunker_id);
  void EvaluateAbsent(const std::string& bunker_id, Row& row);
  void BeginStart(Row& row, const std::string& recipe_digest);
  void BeginStop(Row& row);
  void BeginSwitch(Row& row, bool paused);
  void AfterSwitch(const std::string& bunker_id, bool paused, const absl::Status& status);
  // False: there is none to begin.
  bool BeginCopy(Row& row);
  void AfterCopy(const std::string& bunker_id, bool is_vm_as_before);
  static void RefuseCopies(Row& row);
  void EndedByItself(Row& row, const Exit& exit);
  void Observe(Row& row, link::v1::BunkerObservation::Status status, const std::string& reason);
  void Publish(const Row& row);

  BunkerWork& work_;
  ImageTable& images_;
  ObservationSink& sink_;
  std::map<std::string, Row> rows_;
};

}  // namespace bunker::agent
