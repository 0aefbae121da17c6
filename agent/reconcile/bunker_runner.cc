#include "agent/reconcile/bunker_runner.h"

#include <filesystem>
#include <utility>

#include "agent/reconcile/running_bunker.h"
#include "agent/reconcile/snapshot_job.h"
#include "agent/reconcile/vm_traces.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
using Observed = link::v1::BunkerObservation;
constexpr absl::Duration kRetryPause = absl::Seconds(1);
constexpr absl::Duration kSyncTimeout = absl::Seconds(2);

Observed Failed(const link::v1::BunkerAssignment& wanted, const std::string& reason) {
  Observed observed;
  observed.set_bunker_id(wanted.bunker_id());
  observed.set_incarnation(wanted.incarnation());
  observed.set_status(Observed::FAILED);
  observed.set_status_reason(reason);
  return observed;
}

bool IsFinal(const Observed& observed) {
  return observed.status() == Observed::STOPPED || observed.status() == Observed::FAILED;
}

absl::Status NotRunning() {
  return ReasonError(
      absl::StatusCode::kFailedPrecondition, "BUNKER_NOT_RUNNING",
      "the bunker does not run on its worker; look at its status, or create another");
}

}  // namespace

BunkerRunner::BunkerRunner(EventLoop& loop, Pools pools, BunkerJobParts parts, Options options,
                           Listeners listeners)
    : loop_(loop),
      pool_(pools.vms),
      copies_(pools.copies),
      parts_(parts),
      options_(std::move(options)),
      listeners_(std::move(listeners)),
      mains_(loop, listeners_.on_main) {}

BunkerRunner::~BunkerRunner() {
  for (auto& [id, entry] : entries_) loop_.UnwatchFd(entry.running->vm.exit_fd());
}

absl::StatusOr<std::vector<BunkerRunner::Recovered>> BunkerRunner::Recover(
    const std::set<std::string>& keepers) {
  std::vector<Recovered> recovered;
  ASSIGN_OR_RETURN(const std::vector<v1::VmRow> rows, parts_.journal.Vms());
  for (const v1::VmRow& row : rows) RETURN_IF_ERROR(RecoverOne(row, &recovered));
  SweepFolders();
  SweepDisks(keepers);
  const auto strangers =
      FindProcessesByUid(parts_.uids.first(), parts_.uids.last());
  if (!strangers.ok()) return recovered;
  for (const ProcessIdentity& process : *strangers) {
    bool known = false;
    for (const auto& [id, entry] : entries_)
      known = known || entry.running->vm.record().process.pid == process.pid;
    // Not ours to kill: another agent on this machine may own it.
    if (!known) Log(Severity::kWarning, "vm.unknown_process", {{"pid", process.pid}});
  }
  return recovered;
}

absl::Status BunkerRunner::RecoverOne(const v1::VmRow& row, std::vector<Recovered>* recovered) {
  const link::v1::BunkerAssignment& wanted = row.wanted();
  if (IsFinal(row.observed())) {
    RETURN_IF_ERROR(RemoveVmFolder(parts_, row.folder()));
    recovered->push_back({wanted, row.observed(), ""});
    return absl::OkStatus();
  }
  absl::StatusOr<VmHandle> vm = parts_.vmm.Adopt(RecordOf(row));
  // Only "it is gone" may be taken for an end; anything else would orphan a VM that lives.
  if (!vm.ok() && !absl::IsNotFound(vm.status()))
    return Annotate(vm.status(), "adopting the VM of " + wanted.bunker_id());
  const bool was_running = row.observed().status() == Observed::RUNNING ||
                           row.observed().status() == Observed::PAUSED;
  if (vm.ok() && was_running) {
    auto running = std::make_shared<RunningBunker>();
    running->row = row;
    running->vm = *std::move(vm);
    running->channel = OpenGuestChannel(parts_.vmm, row);
    parts_.images.Pin(row.recipe_digest());
    parts_.uids.Mark(row.uid());
    const auto network = NetworkOf(row, row.uid());
    if (network && parts_.networks != nullptr) parts_.networks->Adopt(*network);
    entries_[wanted.bunker_id()].running = std::move(running);
    recovered->push_back({wanted, row.observed(), row.recipe_digest()});
    Log(Severity::kInfo, "vm.adopted",
        {{"bunker", wanted.bunker_id()},
         {"incarnation", wanted.incarnation()},
         {"pid", row.pid()}});
    Watch(wanted.bunker_id());
    BoundCpu(wanted.bunker_id(), wanted.incarnation());
    return absl::OkStatus();
  }
  // Half booted when the agent died: start over, with nothing of the first try alive.
  if (vm.ok()) RETURN_IF_ERROR(parts_.vmm.Kill(*vm).status());
  RETURN_IF_ERROR(RemoveVmFolder(parts_, row.folder()));
  Log(Severity::kWarning, "vm.not_adopted",
      {{"bunker", wanted.bunker_id()},
       {"incarnation", wanted.incarnation()},
       {"was_running", was_running},
       {"why", std::string(vm.status().message())}});
  if (!was_running) return parts_.journal.RemoveVm(wanted.bunker_id(), wanted.incarnation());
  const bool rebooted = row.boot_id() != HostBootId();
  v1::VmRow ended = row;
  *ended.mutable_observed() =
      Failed(wanted, rebooted ? "HOST_REBOOTED: the worker was rebooted"
                              : "VM_ENDED: the VM ended while the agent was away");
  RETURN_IF_ERROR(parts_.journal.PutVm(ended));
  recovered->push_back({wanted, ended.observed(), ""});
  return absl::OkStatus();
}

void BunkerRunner::SweepFolders() {
  std::set<std::string> kept;
  for (const auto& [id, entry] : entries_) kept.insert(entry.running->row.folder());
  std::error_code error;
  for (const fs::directory_entry& folder : fs::directory_iterator(options_.job.vm_dir, error)) {
    if (kept.count(folder.path()) != 0) continue;
    const absl::Status removed = RemoveVmFolder(parts_, folder.path());
    Log(Severity::kWarning, "vm.folder_swept",
        {{"folder", folder.path().string()}, {"status", std::string(removed.message())}});
  }
}

void BunkerRunner::SweepDisks(const std::set<std::string>& keepers) {
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(options_.job.disk_dir, error)) {
    const std::string id = file.path().stem();
    // One that is being made goes as well: nothing was ever in it.
    if (keepers.count(id) != 0 && file.path().extension() == ".ext4") continue;
    std::error_code failed;
    fs::remove(file.path(), failed);
    Log(Severity::kWarning, "vm.disk_swept",
        {{"file", file.path().string()}, {"error", failed ? failed.message() : ""}});
  }
}

void BunkerRunner::Start(const link::v1::BunkerAssignment& wanted, const std::string& recipe_digest,
                         std::shared_ptr<CancelToken> cancel, OnStarted on_started) {
  const absl::StatusOr<uid_t> uid = parts_.uids.Take();
  if (!uid.ok()) {
    loop_.Post([=] { on_started(Failed(wanted, std::string(uid.status().message()))); });
    return;
  }
  auto job = [this, wanted, recipe_digest, cancel, on_started,
              uid = *uid](CancelToken& pool_token) {
    pool_token.SetCallback([&cancel] { cancel->Cancel(); });
    StartOutcome outcome = StartBunker(parts_, options_.job, wanted, recipe_digest, uid, *cancel);
    pool_token.ClearCallback();
    loop_.Post([this, wanted, on_started, outcome = std::move(outcome)]() mutable {
      auto& started = outcome.running;
      if (!started.ok()) {
        if (!outcome.left_behind) parts_.uids.GiveBack(outcome.uid);
        const std::string reason = ReasonOf(started.status());
        on_started(Failed(wanted, (reason.empty() ? "BOOT_FAILED" : reason) + ": " +
                                      std::string(started.status().message())));
        return;
      }
      const Observed observed = (*started)->row.observed();
      entries_[wanted.bunker_id()].running = *std::move(started);
      Watch(wanted.bunker_id());
      loop_.AddTimer(options_.start_burst, [this, id = wanted.bunker_id(),
                                            incarnation = wanted.incarnation()] {
        BoundCpu(id, incarnation);
      });
      on_started(observed);
    });
  };
  if (const auto submitted = pool_.Submit(std::move(job)); !submitted.ok()) {
    parts_.uids.GiveBack(*uid);
    loop_.Post([=] { on_started(Failed(wanted, "the worker has too many VMs to start at once")); });
  }
}

void BunkerRunner::Stop(const std::string& bunker_id, uint32_t incarnation, bool keep_disk,
                        OnStopped on_stopped) {
  const auto it = entries_.find(bunker_id);
  if (it == entries_.end() || it->second.running->row.wanted().incarnation() != incarnation) {
    if (!keep_disk) return SubmitDropDisk(bunker_id, std::move(on_stopped));
    loop_.Post(std::move(on_stopped));
    return;
  }
  const std::shared_ptr<RunningBunker> running = it->second.running;
  loop_.UnwatchFd(running->vm.exit_fd());
  mains_.Remove(bunker_id);
  const std::vector<OnConsole> readers = std::move(it->second.console_readers);
  entries_.erase(it);
  for (const OnConsole& reader : readers) reader(NotRunning());
  SubmitStop(running, keep_disk, std::move(on_stopped));
}

// Again and again until the VM is gone: its uid and its room are not free before.
void BunkerRunner::SubmitStop(std::shared_ptr<RunningBunker> running, bool keep_disk,
                              OnStopped on_stopped) {
  auto again = [this, running, keep_disk, on_stopped] {
    loop_.AddTimer(kRetryPause, [=, this] { SubmitStop(running, keep_disk, on_stopped); });
  };
  auto job = [this, running, keep_disk, on_stopped, again](CancelToken&) {
    absl::Status ended = StopBunker(parts_, *running, options_.stop_grace, RowAfter::kFinal);
    if (ended.ok() && !keep_disk)
      ended = RemoveKeptDisk(options_.job.disk_dir, running->row.wanted().bunker_id());
    loop_.Post([this, running, on_stopped, again, ended] {
      if (!ended.ok()) return again();
      parts_.uids.GiveBack(running->row.uid());
      on_stopped();
    });
  };
  if (!pool_.Submit(std::move(job)).ok()) again();
}

void BunkerRunner::SubmitDropDisk(const std::string& bunker_id, OnStopped on_stopped) {
  auto again = [this, bunker_id, on_stopped] {
    loop_.AddTimer(kRetryPause, [=, this] { SubmitDropDisk(bunker_id, on_stopped); });
  };
  auto job = [this, bunker_id, on_stopped, again](CancelToken&) {
    const absl::Status removed = RemoveKeptDisk(options_.job.disk_dir, bunker_id);
    loop_.Post([on_stopped, again, removed] { removed.ok() ? on_stopped() : again(); });
  };
  if (!pool_.Submit(std::move(job)).ok()) again();
}

void BunkerRunner::SetPaused(const std::string& bunker_id, uint32_t incarnation, bool paused,
                             OnPaused on_paused) {
  const auto it = entries_.find(bunker_id);
  if (it == entries_.end() || it->second.running->row.wanted().incarnation() != incarnation) {
    loop_.Post([on_paused] { on_paused(NotRunning()); });
    return;
  }
  // The job has a copy of the row, for the VM may end meanwhile, which the loop then notes.
  const std::shared_ptr<RunningBunker> running = it->second.running;
  auto job = [this, running, row = running->row, paused, on_paused](CancelToken&) mutable {
    // A paused guest can't write out what it has, and what is on its disk may be all that is kept:
    // a snapshot is taken, or its VM dies. A guest that does not answer is paused all the same.
    if (paused && running->channel->ready())
      SyncGuestDisk(row, *running->channel, kSyncTimeout).IgnoreError();
    const absl::Status done = SetBunkerPaused(parts_, row, *running->channel, paused);
    loop_.Post([running, paused, on_paused, done] {
      Observed* observed = running->row.mutable_observed();
      if (done.ok() && !IsFinal(*observed))
        observed->set_status(paused ? Observed::PAUSED : Observed::RUNNING);
      on_paused(done);
    });
  };
  if (const auto submitted = pool_.Submit(std::move(job)); !submitted.ok())
    loop_.Post([on_paused, status = submitted.status()] { on_paused(status); });
}

void BunkerRunner::CopyDisk(const std::string& bunker_id, const Copy& wanted,
                            std::shared_ptr<CancelToken> cancel, OnCopied on_copied) {
  const absl::StatusOr<std::string> path =
      KeptDiskPath(options_.job.snapshot_dir, wanted.snapshot_id);
  if (!path.ok()) return loop_.Post([on_copied, path] { on_copied({path.status()}); });
  const auto it = entries_.find(bunker_id);
  const std::shared_ptr<RunningBunker> running =
      it == entries_.end() ? nullptr : it->second.running;
  const v1::VmRow row = running == nullptr ? v1::VmRow() : running->row;
  if (running == nullptr && wanted.memory)
    return loop_.Post([on_copied] { on_copied({NotRunning()}); });
  auto job = [this, bunker_id, path = *path, memory = wanted.memory, running, row, cancel,
              on_copied](CancelToken& pool_token) {
    pool_token.SetCallback([&cancel] { cancel->Cancel(); });
    SnapshotOutcome outcome{uint64_t{0}};
    if (running != nullptr) {
      outcome = SnapshotVm(parts_, options_.job, row, *running->channel, path, memory,
                           *cancel);
    } else {
      outcome.size_bytes = SnapshotKeptDisk(options_.job, bunker_id, path, *cancel);
    }
    pool_token.ClearCallback();
    loop_.Post([running, on_copied, outcome] {
      // What ends it must know that it may have to let it go on before.
      if (!outcome.is_vm_as_before && !IsFinal(running->row.observed()))
        running->row.mutable_observed()->set_status(Observed::PAUSED);
      on_copied({outcome.size_bytes.status(), outcome.size_bytes.value_or(0),
                 outcome.is_vm_as_before});
    });
  };
  if (const auto submitted = copies_.Submit(std::move(job)); !submitted.ok())
    loop_.Post([on_copied, status = submitted.status()] { on_copied({status}); });
}

void BunkerRunner::Later(std::function<void()> again) {
  loop_.AddTimer(kRetryPause, std::move(again));
}

void BunkerRunner::Forget(const std::string& bunker_id, uint32_t incarnation) {
  if (const absl::Status status = parts_.journal.RemoveVm(bunker_id, incarnation); !status.ok())
    Log(Severity::kWarning, "journal.vm_not_removed",
        {{"bunker", bunker_id}, {"error", std::string(status.message())}});
}

void BunkerRunner::Watch(const std::string& bunker_id) {
  const int fd = entries_.at(bunker_id).running->vm.exit_fd();
  const absl::Status watched = loop_.WatchFd(fd, EventLoop::kReadable,
                                             [this, bunker_id](uint32_t) { OnVmEnded(bunker_id); });
  const RunningBunker& running = *entries_.at(bunker_id).running;
  const link::v1::BunkerAssignment& wanted = running.row.wanted();
  if (wanted.has_main()) mains_.Add(bunker_id, wanted.incarnation(), running.channel);
  if (!watched.ok())
    Log(Severity::kError, "vm.not_watched",
        {{"bunker", bunker_id}, {"error", std::string(watched.message())}});
}

// Two writes to files of the kernel's, so on the loop: nothing can end the VM in between, whose
// group would come back by them.
void BunkerRunner::BoundCpu(const std::string& bunker_id, uint32_t incarnation) {
  const Entry* entry = Find(bunker_id, incarnation);
  if (entry == nullptr) return;
  const v1::VmRow& row = entry->running->row;
  const absl::Status bound =
      BoundVmCpu(parts_.cgroups, row.folder(), row.wanted().cpu_millicores());
  if (bound.ok()) return;
  Log(Severity::kError, "vm.cpu_not_bounded",
      {{"bunker", bunker_id}, {"error", std::string(bound.message())}});
  loop_.AddTimer(kRetryPause, [=, this] { BoundCpu(bunker_id, incarnation); });
}

void BunkerRunner::OnVmEnded(const std::string& bunker_id) {
  const auto it = entries_.find(bunker_id);
  BUNKER_CHECK(it != entries_.end());
  RunningBunker& running = *it->second.running;
  loop_.UnwatchFd(running.vm.exit_fd());
  const absl::StatusOr<VmExit> exit = parts_.vmm.Reap(running.vm);
  const bool clean =
      exit.ok() && exit->process.known && exit->process.signal == 0 && exit->process.code == 0;
  const std::string how = exit.ok() ? DescribeExit(exit->process) + ". " + exit->detail
                                    : std::string(exit.status().message());
  const std::string reason =
      (clean ? "GUEST_POWERED_OFF: the guest ended itself, " : "VM_ENDED: ") + how;
  Observed* observed = running.row.mutable_observed();
  observed->set_status(clean ? Observed::STOPPED : Observed::FAILED);
  observed->set_status_reason(reason);
  listeners_.on_exit(bunker_id, running.row.wanted().incarnation(), clean, reason);
}

absl::StatusOr<std::shared_ptr<GuestChannel>> BunkerRunner::FindChannel(
    const std::string& bunker_id, uint32_t incarnation) const {
  const auto it = entries_.find(bunker_id);
  if (it == entries_.end()) return NotRunning();
  if (it->second.running->row.wanted().incarnation() != incarnation) {
    return ReasonError(absl::StatusCode::kAborted, "STALE_INCARNATION",
                       "the bunker was started again since: read its row and try again");
  }
  return it->second.running->channel;
}

void BunkerRunner::CountExec(const std::string& bunker_id, uint32_t incarnation, int change) {
  const auto it = entries_.find(bunker_id);
  if (it == entries_.end() || it->second.running->row.wanted().incarnation() != incarnation) return;
  it->second.active_execs =
      static_cast<uint32_t>(static_cast<int64_t>(it->second.active_execs) + change);
  listeners_.on_activity(bunker_id, incarnation, it->second.active_execs);
}

void BunkerRunner::ReportActivity() {
  for (const auto& [id, entry] : entries_) {
    if (entry.active_execs > 0)
      listeners_.on_activity(id, entry.running->row.wanted().incarnation(), entry.active_execs);
  }
}

void BunkerRunner::MeasureAll() {
  struct Measured {
    v1::VmRow row;
    absl::StatusOr<link::v1::Usage> usage = absl::UnknownError("not measured");
  };
  std::vector<Measured> all;
  for (const auto& [id, entry] : entries_) all.push_back({entry.running->row});
  if (all.empty() || std::exchange(measuring_, true)) return;
  auto job = [this, all = std::move(all)](CancelToken&) mutable {
    for (Measured& one : all) one.usage = MeasureVm(one.row, options_.job.disk_dir);
    loop_.Post([this, all = std::move(all)] {
      measuring_ = false;
      for (const Measured& one : all) {
        const link::v1::BunkerAssignment& wanted = one.row.wanted();
        if (one.usage.ok())
          listeners_.on_usage(wanted.bunker_id(), wanted.incarnation(), *one.usage);
      }
    });
  };
  if (!pool_.Submit(std::move(job)).ok()) measuring_ = false;
}

BunkerRunner::Entry* BunkerRunner::Find(const std::string& bunker_id, uint32_t incarnation) {
  const auto it = entries_.find(bunker_id);
  const bool there =
      it != entries_.end() && it->second.running->row.wanted().incarnation() == incarnation;
  return there ? &it->second : nullptr;
}

void BunkerRunner::ReadConsole(const std::string& bunker_id, uint32_t incarnation,
                               OnConsole on_console) {
  if (const auto channel = FindChannel(bunker_id, incarnation); !channel.ok())
    return loop_.Post([on_console, why = channel.status()] { on_console(why); });
  Entry& entry = *Find(bunker_id, incarnation);
  entry.console_readers.push_back(std::move(on_console));
  if (entry.console_readers.size() > 1) return;
  auto job = [this, bunker_id, incarnation,
              record = entry.running->vm.record()](CancelToken&) {
    loop_.Post([this, bunker_id, incarnation, log = ReadConsoleLog(parts_.vmm, record)] {
      OnConsoleRead(bunker_id, incarnation, log);
    });
  };
  if (const auto submitted = pool_.Submit(std::move(job)); !submitted.ok())
    loop_.Post([this, bunker_id, incarnation, status = submitted.status()] {
      OnConsoleRead(bunker_id, incarnation, status);
    });
}

void BunkerRunner::OnConsoleRead(const std::string& bunker_id, uint32_t incarnation,
                                 const absl::StatusOr<ConsoleLog>& log) {
  Entry* entry = Find(bunker_id, incarnation);
  if (entry == nullptr) return;
  for (const OnConsole& reader : std::exchange(entry->console_readers, {})) reader(log);
}

void BunkerRunner::OnExecDone(const std::string& bunker_id, uint32_t incarnation,
                              absl::Duration took) {
  const auto it = entries_.find(bunker_id);
  if (it == entries_.end() || it->second.running->row.wanted().incarnation() != incarnation) return;
  if (!std::exchange(it->second.has_executed, true))
    listeners_.on_first_exec(bunker_id, incarnation, took);
}

}  // namespace bunker::agent
