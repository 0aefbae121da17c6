// BunkerWork for real: starts VMs on a bounded pool, watches their ends on the loop, ends them,
// and adopts those that outlived an earlier agent.
//
// On the loop only, but for what it does on the pool by itself.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/cache/image_store.h"
#include "agent/exec/guest_channel.h"
#include "agent/journal/journal.h"
#include "agent/reconcile/bunker_job.h"
#include "agent/reconcile/bunker_table.h"
#include "agent/reconcile/console_log.h"
#include "agent/reconcile/main_watch.h"
#include "agent/vm/vmm.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class BunkerRunner final : public BunkerWork {
 public:
  struct Options {
    BunkerJobOptions job;
    absl::Duration stop_grace = absl::Seconds(3);
    absl::Duration start_burst;  // a VM that runs may take any CPU that is free for so long
  };
  // All on the loop.
  using OnExit = std::function<void(const std::string& bunker_id, uint32_t incarnation, bool clean,
                                    const std::string& reason)>;
  using OnActivity = std::function<void(const std::string& bunker_id, uint32_t incarnation,
                                        uint32_t active_execs)>;
  using OnFirstExec =
      std::function<void(const std::string& bunker_id, uint32_t incarnation, absl::Duration took)>;
  using OnUsage = std::function<void(const std::string& bunker_id, uint32_t incarnation,
                                     const link::v1::Usage& usage)>;
  struct Listeners {
    OnExit on_exit;
    OnActivity on_activity;
    OnFirstExec on_first_exec;
    OnUsage on_usage;
    MainWatch::OnMain on_main;
  };

  // Copies of disks have their own: nobody's start or stop waits for them.
  struct Pools {
    WorkerPool& vms;
    WorkerPool& copies;
  };

  // All must outlive the runner; the pools must be shut down before the loop goes.
  BunkerRunner(EventLoop& loop, Pools pools, BunkerJobParts parts, Options options,
               Listeners listeners);
  ~BunkerRunner() override;

  // What an earlier life left: adopts the VMs that run, removes what is dead or half made, and the
  // disks of bunkers that are not among `keepers`. Blocking; once, before the loop runs. The rows
  // go to BunkerTable::Restore.
  struct Recovered {
    link::v1::BunkerAssignment wanted;
    link::v1::BunkerObservation observed;
    std::string recipe_digest;
  };
  absl::StatusOr<std::vector<Recovered>> Recover(const std::set<std::string>& keepers);

  void Start(const link::v1::BunkerAssignment& wanted, const std::string& recipe_digest,
             std::shared_ptr<CancelToken> cancel, OnStarted on_started) override;
  void Stop(const std::string& bunker_id, uint32_t incarnation, bool keep_disk,
            OnStopped on_stopped) override;
  void SetPaused(const std::string& bunker_id, uint32_t incarnation, bool paused,
                 OnPaused on_paused) override;
  void CopyDisk(const std::string& bunker_id, const Copy& wanted,
                std::shared_ptr<CancelToken> cancel, OnCopied on_copied) override;
  void Later(std::function<void()> again) override;
  void Forget(const std::string& bunker_id, uint32_t incarnation) override;

  // The channel to a running bunker's guest. BUNKER_NOT_RUNNING or STALE_INCARNATION where there
  // is none to have.
  absl::StatusOr<std::shared_ptr<GuestChannel>> FindChannel(const std::string& bunker_id,
                                                            uint32_t incarnation) const;

  // An exec on that bunker began (+1) or ended (-1).
  void CountExec(const std::string& bunker_id, uint32_t incarnation, int change);
  // Tells on_activity of every bunker in which a command runs now.
  void ReportActivity();
  // Measures every VM, on the pool, and tells on_usage. One round at a time.
  void MeasureAll();
  // What is kept of the guest's console, its newest included; read on the pool. BUNKER_NOT_RUNNING
  // or STALE_INCARNATION where there is none to have. Exactly once.
  using OnConsole = std::function<void(const absl::StatusOr<ConsoleLog>&)>;
  void ReadConsole(const std::string& bunker_id, uint32_t incarnation, OnConsole on_console);
  // How long a command took; the first one of a bunker is told to on_first_exec.
  void OnExecDone(const std::string& bunker_id, uint32_t incarnation, absl::Duration took);

 private:
  struct Entry {
    std::shared_ptr<RunningBunker> running;
    uint32_t active_execs = 0;
    bool has_executed = false;
    std::vector<OnConsole> console_readers;  // they wait for the read that is under way
  };

  void Watch(const std::string& bunker_id);
  void BoundCpu(const std::string& bunker_id, uint32_t incarnation);
  Entry* Find(const std::string& bunker_id, uint32_t incarnation);
  void OnConsoleRead(const std::string& bunker_id, uint32_t incarnation,
                     const absl::StatusOr<ConsoleLog>& log);
  void OnVmEnded(const std::string& bunker_id);
  void SubmitStop(std::shared_ptr<RunningBunker> running, bool keep_disk, OnStopped on_stopped);
  void SubmitDropDisk(const std::string& bunker_id, OnStopped on_stopped);
  void SweepDisks(const std::set<std::string>& keepers);
  absl::Status RecoverOne(const v1::VmRow& row, std::vector<Recovered>* recovered);
  void SweepFolders();

  EventLoop& loop_;
  WorkerPool& pool_;
  WorkerPool& copies_;
  const BunkerJobParts parts_;
  const Options options_;
  const Listeners listeners_;

  std::map<std::string, Entry> entries_;  // running, by bunker id
  MainWatch mains_;
  bool measuring_ = false;
};

}  // namespace bunker::agent
