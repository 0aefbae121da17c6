#include "agent/reconcile/clone_pool.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/reconcile/guest_shell.h"
#include "agent/reconcile/vm_traces.h"
#include "agent/vm/disk_copy.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMbEach = 64;  // its VMM, and what its guest writes until it is taken
constexpr absl::Duration kDemandWindow = absl::Minutes(1);
constexpr absl::Duration kReadyTimeout = absl::Minutes(1);
constexpr absl::Duration kShellTimeout = absl::Minutes(1);
// What a first command makes the emulator translate: fork, exec, a program's start and end.
constexpr char kWarmUp[] = "/bin/true; echo; id";

}  // namespace

ClonePool::~ClonePool() { Shutdown(); }

std::unique_ptr<PooledClone> ClonePool::Take(const std::shared_ptr<const Template>& of,
                                             const VmSpec& form) {
  if (options_.max_count == 0) return nullptr;
  std::vector<std::unique_ptr<PooledClone>> dead;  // ended without the lock
  std::unique_ptr<PooledClone> taken;
  {
    MutexLock lock(mutex_);
    Demand& demand = demand_[of->key];
    demand.form = form;
    demand.of = of;
    demand.last = MonotonicTime();
    demand.asked.push_back(demand.last);
    if (demand.asked.size() > options_.max_count) demand.asked.pop_front();
    for (auto it = ready_.begin(); it != ready_.end() && !taken;) {
      if ((*it)->made_from != of) {
        ++it;
        continue;
      }
      auto& into = (*it)->vm.process().HasEnded() ? dead.emplace_back() : taken;
      into = std::move(*it);
      it = ready_.erase(it);
    }
    FillLocked();
  }
  for (auto& clone : dead) End(std::move(clone));
  return taken;
}

size_t ClonePool::Room() const {
  const size_t most = std::min<size_t>(options_.max_count, options_.memory_mb / kMbEach);
  const size_t have = ready_.size() + under_way_;
  return have < most ? most - have : 0;
}

void ClonePool::FillLocked() {
  const absl::Duration since = MonotonicTime() - kDemandWindow;
  for (auto& [key, demand] : demand_) {
    // One at a time: the next one when it is there.
    if (under_way_ > 0 || Room() == 0) return;
    while (!demand.asked.empty() && demand.asked.front() < since) demand.asked.pop_front();
    const std::shared_ptr<const Template> of = demand.of.lock();
    const auto have = static_cast<size_t>(std::count_if(
        ready_.begin(), ready_.end(), [&](const auto& clone) { return clone->made_from == of; }));
    if (of != nullptr && have < demand.asked.size()) SubmitLocked(of, demand.form);
  }
}

void ClonePool::SubmitLocked(std::shared_ptr<const Template> of, VmSpec spec) {
  // One that was taken keeps its folder, also over a restart of the agent.
  do {
    spec.folder = absl::StrCat(options_.vm_dir, "/pool.", ++next_name_);
  } while (fs::exists(spec.folder));
  ++under_way_;
  auto job = [this, of = std::move(of), spec = std::move(spec)](CancelToken& cancel) {
    absl::Status made = cancel.Check();
    if (made.ok()) made = Make(of, spec, cancel);
    if (!made.ok() && cancel.Check().ok())
      Log(Severity::kWarning, "pool.failed", {{"why", std::string(made.message())}});
    MutexLock lock(mutex_);
    --under_way_;
    if (made.ok()) FillLocked();
  };
  if (!pool_.Submit(std::move(job)).ok()) --under_way_;
}

absl::Status ClonePool::Make(std::shared_ptr<const Template> of, VmSpec spec,
                             CancelToken& cancel) {
  auto clone = std::make_unique<PooledClone>();
  ASSIGN_OR_RETURN(spec.uid, uids_.Take());
  clone->made_from = std::move(of);
  v1::VmRow& row = clone->row;
  row.mutable_wanted()->set_bunker_id(spec.folder.substr(options_.vm_dir.size() + 1));
  row.mutable_wanted()->set_incarnation(1);
  row.mutable_observed()->set_status(link::v1::BunkerObservation::PROVISIONING);
  row.set_recipe_digest(clone->made_from->recipe_digest);
  row.set_folder(spec.folder);
  row.set_uid(spec.uid);
  absl::Status raised = Raise(*clone, spec, cancel);
  if (raised.ok()) raised = WarmUp(*clone, cancel);
  if (!raised.ok()) {
    End(std::move(clone));
    return raised;
  }
  const std::string name = row.wanted().bunker_id();
  MutexLock lock(mutex_);
  ready_.push_back(std::move(clone));
  Log(Severity::kInfo, "pool.ready", {{"name", name}, {"waiting", ready_.size()}});
  return absl::OkStatus();
}

absl::Status ClonePool::Raise(PooledClone& clone, const VmSpec& form, CancelToken& cancel) {
  const Template& from = *clone.made_from;
  VmSpec spec = form;
  spec.rw_disk = spec.folder + "/rw.ext4";
  spec.background = true;
  RETURN_IF_ERROR(MakeFolders(spec.folder, 0700));
  RETURN_IF_ERROR(CopyRwDisk(from.disk, spec.rw_disk, from.disk_mb, spec.uid));
  const auto journalled = [&](const RunningVm& record) -> absl::Status {
    PutRecord(record, &clone.row);
    RETURN_IF_ERROR(BoundVm(cgroups_, spec, /*is_clone=*/true, record.process.pid));
    return journal_.PutVm(clone.row);
  };
  ASSIGN_OR_RETURN(clone.vm, vmm_.Restore(spec, from.snapshot, journalled, cancel));
  return absl::OkStatus();
}

absl::Status ClonePool::WarmUp(PooledClone& clone, CancelToken& cancel) {
  clone.channel = OpenGuestChannel(vmm_, clone.row);
  cancel.SetCallback([fd = clone.vm.exit_fd()] {
    ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
  });
  absl::Status status = clone.channel->WaitReady(kReadyTimeout, &cancel);
  if (status.ok()) status = clone.channel->Configure(FreshConfig(), kReadyTimeout);
  if (status.ok()) status = RunWarmUpShell(*clone.channel, kWarmUp, kShellTimeout, cancel);
  cancel.ClearCallback();
  RETURN_IF_ERROR(status);
  return vmm_.Pause(clone.vm.record());
}

void ClonePool::End(std::unique_ptr<PooledClone> clone) {
  clone->channel.reset();
  absl::Status status;
  if (clone->vm.process()) status = vmm_.Kill(clone->vm).status();
  if (status.ok()) status = RemoveVmTraces(vmm_, cgroups_, clone->row.folder());
  if (status.ok()) status = journal_.RemoveVm(clone->row.wanted().bunker_id(), 1);
  // What is left has its row, and its uid for as long: the agent's next start ends it.
  if (status.ok()) uids_.GiveBack(clone->row.uid());
  if (!status.ok())
    Log(Severity::kWarning, "pool.end_failed", {{"why", std::string(status.message())}});
}

void ClonePool::Tend() {
  MutexLock lock(mutex_);
  const absl::Duration since = MonotonicTime() - options_.idle_after;
  std::erase_if(demand_, [&](const auto& row) {
    return row.second.of.expired() || row.second.last < since;
  });
  for (auto it = ready_.begin(); it != ready_.end();) {
    const auto row = demand_.find((*it)->made_from->key);
    const bool wanted = row != demand_.end() && row->second.of.lock() == (*it)->made_from;
    const auto looked_at = it++;
    if (wanted && !(*looked_at)->vm.process().HasEnded()) continue;
    // Shared, so that it is still here where the job is not taken.
    auto clone = std::make_shared<std::unique_ptr<PooledClone>>(std::move(*looked_at));
    ready_.erase(looked_at);
    if (!pool_.Submit([this, clone](CancelToken&) { End(std::move(*clone)); }).ok())
      ready_.push_front(std::move(*clone));
  }
  FillLocked();
}

void ClonePool::DropImage(const std::string& recipe_digest) {
  {
    MutexLock lock(mutex_);
    std::erase_if(demand_, [&](const auto& row) {
      const std::shared_ptr<const Template> of = row.second.of.lock();
      return of == nullptr || of->recipe_digest == recipe_digest;
    });
  }
  Tend();
}

void ClonePool::Shutdown() {
  pool_.Shutdown();
  std::list<std::unique_ptr<PooledClone>> ready;
  {
    MutexLock lock(mutex_);
    ready.swap(ready_);
  }
  for (auto& clone : ready) End(std::move(clone));
}

}  // namespace bunker::agent
