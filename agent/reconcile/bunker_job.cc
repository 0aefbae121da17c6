#include "agent/reconcile/bunker_job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "agent/reconcile/guest_config.h"
#include "agent/reconcile/running_bunker.h"
#include "agent/reconcile/vm_traces.h"
#include "agent/vm/disk_copy.h"
#include "agent/vm/rw_disk.h"
#include "agent/vm/saved_memory.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/proc/deadline.h"
#include "common/proc/process_usage.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
// The cloud kernel takes 62 MiB while it boots: with 64 it panics, with 80 it comes up (measured).
// A smaller bunker gets this much; placement counts kVmOverheadMb on top anyway.
constexpr uint32_t kMinGuestMemoryMb = 96;
constexpr absl::Duration kAbortGrace = absl::Seconds(1);
constexpr absl::Duration kAbortDeadline = absl::Minutes(1);
constexpr absl::Duration kConfigureTimeout = absl::Seconds(20);
constexpr absl::Duration kWaitSlice = absl::Milliseconds(500);

double MsSince(absl::Duration begin) {
  return absl::ToDoubleMilliseconds(MonotonicTime() - begin);
}

// The steps of a start; where one fails, all before it are undone.
class StartJob {
 public:
  StartJob(const BunkerJobParts& parts, const BunkerJobOptions& options,
           const link::v1::BunkerAssignment& wanted, const std::string& recipe, uid_t uid,
           CancelToken& cancel)
      : parts_(parts),
        options_(options),
        wanted_(wanted),
        uid_(uid),
        cancel_(cancel),
        running_(std::make_shared<RunningBunker>()) {
    v1::VmRow& row = running_->row;
    *row.mutable_wanted() = wanted;
    row.set_recipe_digest(recipe);
    row.set_folder(options.vm_dir + "/" + wanted.bunker_id() + "." +
                   std::to_string(wanted.incarnation()));
    row.set_kernel_digest(options.kernel_digest);
    row.set_initrd_digest(options.initrd_digest);
    link::v1::BunkerObservation* observed = row.mutable_observed();
    observed->set_bunker_id(wanted.bunker_id());
    observed->set_incarnation(wanted.incarnation());
    observed->set_status(link::v1::BunkerObservation::PROVISIONING);
    parts_.images.Pin(recipe);
  }

  StartOutcome Run() {
    StartOutcome outcome;
    const absl::Status status = Steps();
    outcome.uid = uid_;
    if (status.ok()) {
      outcome.running = std::move(running_);
      return outcome;
    }
    outcome.running = status;
    const Deadline deadline(kAbortDeadline);
    absl::Status ended;
    do {
      ended = StopBunker(parts_, *running_, kAbortGrace, RowAfter::kRemoved);
    } while (!ended.ok() && !deadline.Expired());
    outcome.left_behind = !ended.ok();
    return outcome;
  }

 private:
  absl::Status Steps() {
    RETURN_IF_ERROR(cancel_.Check());
    if (!parts_.images.Find(running_->row.recipe_digest()))
      return absl::NotFoundError("the image was evicted before the VM began");
    ASSIGN_OR_RETURN(const std::string start_kind, BringUp());
    RETURN_IF_ERROR(StartMain());
    link::v1::BunkerObservation* observed = running_->row.mutable_observed();
    observed->set_status(link::v1::BunkerObservation::RUNNING);
    observed->set_isolation(AcceleratorName(options_.accelerator));
    observed->set_start_kind(start_kind);
    observed->set_last_activity_unix_ms(absl::ToUnixMillis(absl::Now()));
    return parts_.journal.PutVm(running_->row);
  }

  // Once it is settled who this is: nothing of the tenant's runs in a guest that may yet be ended
  // because it can't become this bunker.
  absl::Status StartMain() {
    if (!wanted_.has_main()) return absl::OkStatus();
    return Annotate(Configure(MainConfigFor(wanted_)), "starting the image's command");
  }

  // The quickest way that works; why it was not a quicker one is then in the row.
  absl::StatusOr<std::string> BringUp() {
    if (wanted_.snapshot_memory()) {
      ASSIGN_OR_RETURN(const bool goes_on, TrySavedMemory());
      if (goes_on) return "restore";
    }
    ASSIGN_OR_RETURN(const std::shared_ptr<const Template> from, FindTemplate());
    if (from != nullptr) {
      ASSIGN_OR_RETURN(const bool pooled, TryPool(from));
      if (pooled) return "pool";
      ASSIGN_OR_RETURN(const bool restored, TryRestore(from));
      if (restored) return "restore";
    }
    RETURN_IF_ERROR(BootCold());
    return "cold";
  }

  absl::StatusOr<std::shared_ptr<const Template>> FindTemplate() {
    std::string* why_not = running_->row.mutable_observed()->mutable_fallback_reason();
    if (HasSeveralCards(wanted_)) {
      if (parts_.templates.enabled())
        *why_not = "TEMPLATE_MISSING: a bunker with several network cards boots";
      return nullptr;
    }
    if (!wanted_.snapshot_id().empty()) {
      if (why_not->empty() && parts_.templates.enabled())
        *why_not = "TEMPLATE_MISSING: bunkers made from a snapshot without memory boot";
      return nullptr;
    }
    if (wanted_.keep_disk()) {
      ASSIGN_OR_RETURN(disk_, KeptDiskPath(options_.disk_dir, wanted_.bunker_id()));
      // A template's memory has the template's own disk mounted, not this one.
      if (wanted_.disk_expected() || fs::exists(disk_)) {
        if (parts_.templates.enabled())
          *why_not = "TEMPLATE_MISSING: a bunker with a disk of before boots from it";
        return nullptr;
      }
    }
    TemplateKeeper::Answer answer =
        parts_.templates.Find(Form(), running_->row.recipe_digest(), wanted_.disk_mb());
    *why_not = answer.why_not;
    return answer.found;
  }

  // Not where disk or card would have to be another, or the VM be made with other limits: of its
  // disk it can write no more than it began with.
  bool FitsPool(const Template& from) const {
    return !wanted_.keep_disk() && !HasNetworkCard(wanted_) && wanted_.disk_bytes_per_s() == 0 &&
           wanted_.disk_iops() == 0 && wanted_.disk_mb() == from.disk_mb;
  }

  // False where the pool has none, or its one could not be made this bunker and is gone.
  absl::StatusOr<bool> TryPool(const std::shared_ptr<const Template>& from) {
    if (!FitsPool(*from)) return false;
    const std::unique_ptr<PooledClone> clone = parts_.clones.Take(from, Form());
    if (clone == nullptr) return false;
    // From here on it is this bunker's, whatever happens.
    const std::string own_folder = running_->row.folder();
    running_->row.set_folder(clone->row.folder());
    PutRecord(clone->vm.record(), &running_->row);
    parts_.uids.GiveBack(std::exchange(uid_, clone->row.uid()));
    running_->vm = std::move(clone->vm);
    running_->channel = std::move(clone->channel);
    RETURN_IF_ERROR(
        parts_.journal.RenameVm(clone->row.wanted().bunker_id(), running_->row));
    const absl::Duration begin = MonotonicTime();
    absl::Status claimed = parts_.vmm.Resume(running_->vm.record());
    if (claimed.ok()) claimed = BecomeItself(begin, from->disk_mb);
    if (claimed.ok()) return true;
    RETURN_IF_ERROR(cancel_.Check());
    Log(Severity::kWarning, "pool.clone_failed",
        {{"bunker", wanted_.bunker_id()}, {"why", std::string(claimed.message())}});
    RETURN_IF_ERROR(Undo());
    running_->row.set_folder(own_folder);
    return false;
  }

  // As TryRestore, from the memory that its snapshot holds: with that moment's disk, once.
  absl::StatusOr<bool> TrySavedMemory() {
    std::string disk = running_->row.folder() + "/rw.ext4";
    if (wanted_.keep_disk()) {
      ASSIGN_OR_RETURN(disk, KeptDiskPath(options_.disk_dir, wanted_.bunker_id()));
      if (wanted_.disk_expected() || fs::exists(disk)) return false;
    }
    disk_ = disk;
    const absl::Status restored = RestoreSaved();
    if (restored.ok()) return true;
    RETURN_IF_ERROR(cancel_.Check());
    Log(Severity::kWarning, "snapshot.memory_not_restored",
        {{"bunker", wanted_.bunker_id()}, {"why", std::string(restored.message())}});
    running_->row.mutable_observed()->set_fallback_reason("RESTORE_FAILED: " +
                                                          std::string(restored.message()));
    RETURN_IF_ERROR(Undo());
    grows_ = false;
    return false;
  }

  absl::Status RestoreSaved() {
    ASSIGN_OR_RETURN(const std::string source,
                     KeptDiskPath(options_.snapshot_dir, wanted_.snapshot_id()));
    ASSIGN_OR_RETURN(const VmSnapshot saved, LoadMemory(source));
    RETURN_IF_ERROR(MakeFolders(running_->row.folder(), 0700));
    RETURN_IF_ERROR(CopySnapshot());
    RETURN_IF_ERROR(SyncFolder(fs::path(disk_).parent_path()));
    const absl::Duration begin = MonotonicTime();
    VmSpec spec = Spec();
    ASSIGN_OR_RETURN(const BunkerNetwork network, MakeNetwork());
    PutCards(wanted_, network, &spec);
    ASSIGN_OR_RETURN(running_->vm, parts_.vmm.Restore(spec, saved, Journalled(/*is_clone=*/true),
                                                     cancel_));
    // The device is to grow before the files on it.
    if (std::exchange(grows_, false)) return BecomeItself(begin, 0);
    return BecomeItself(begin, wanted_.disk_mb());
  }

  // False, and nothing left of it, where the bunker has to boot.
  absl::StatusOr<bool> TryRestore(const std::shared_ptr<const Template>& from) {
    const absl::Status restored = RestoreFrom(*from);
    if (restored.ok()) return true;
    RETURN_IF_ERROR(cancel_.Check());
    if (no_network_) {  // none of the template's fault, and a boot would meet the same
      RETURN_IF_ERROR(Undo());
      return restored;
    }
    parts_.templates.Reject(from, restored);
    running_->row.mutable_observed()->set_fallback_reason("RESTORE_FAILED: " +
                                                          std::string(restored.message()));
    RETURN_IF_ERROR(Undo());
    return false;
  }

  // Ends what came up so far; the next way begins with nothing on the host but the uid.
  absl::Status Undo() {
    running_->channel.reset();
    if (running_->vm.process()) RETURN_IF_ERROR(parts_.vmm.Kill(running_->vm).status());
    running_->vm = VmHandle();
    RETURN_IF_ERROR(RemoveVmFolder(parts_, running_->row.folder()));
    if (!wanted_.keep_disk()) return absl::OkStatus();
    return RemoveKeptDisk(options_.disk_dir, wanted_.bunker_id());
  }

  // Closed, never open: a bunker whose network can't be held to its profile does not start.
  absl::StatusOr<BunkerNetwork> MakeNetwork() {
    const std::optional<NetworkRequest> request =
        NetworkOf(running_->row, uid_);
    if (!request) return BunkerNetwork();
    if (parts_.networks == nullptr) {
      return ReasonError(absl::StatusCode::kFailedPrecondition, "NETWORK_PROFILE_DENIED",
                         "this worker can't enforce the network profile " + request->profile);
    }
    absl::StatusOr<BunkerNetwork> network = parts_.networks->SetUp(*request);
    no_network_ = !network.ok();
    if (network.ok()) running_->row.mutable_observed()->set_private_ip(network->private_ip);
    return network;
  }

  absl::Status RestoreFrom(const Template& from) {
    const std::string& folder = running_->row.folder();
    RETURN_IF_ERROR(MakeFolders(folder, 0700));
    RETURN_IF_ERROR(CopyTemplateDisk(from.disk));
    const absl::Duration begin = MonotonicTime();
    VmSpec spec = Spec();
    ASSIGN_OR_RETURN(const BunkerNetwork network, MakeNetwork());
    PutCards(wanted_, network, &spec);
    ASSIGN_OR_RETURN(running_->vm, parts_.vmm.Restore(spec, from.snapshot,
                                                     Journalled(/*is_clone=*/true), cancel_));
    return BecomeItself(begin, from.disk_mb);
  }

  // From a clone that runs to this very bunker. One that is not wholly itself would be somebody's
  // double: after any problem it is ended.
  absl::Status BecomeItself(absl::Duration begin, uint64_t had_disk_mb) {
    guest::v1::GuestConfig config = ConfigFor(wanted_);
    if (wanted_.disk_mb() > had_disk_mb) {
      const uint64_t bytes = uint64_t{wanted_.disk_mb()} << 20;
      RETURN_IF_ERROR(parts_.vmm.GrowDisk(running_->vm.record(), bytes));
      config.set_rw_disk_bytes(bytes);
    }
    return Settle(begin, std::move(config));
  }

  absl::Status BootCold() {
    RETURN_IF_ERROR(MakeFolders(running_->row.folder(), 0700));
    RETURN_IF_ERROR(MakeDisk());
    RETURN_IF_ERROR(cancel_.Check());
    const absl::Duration begin = MonotonicTime();
    VmSpec spec = Spec();
    spec.snapshots = parts_.vmm.Capabilities().snapshots;  // a tenant may ask for its memory
    ASSIGN_OR_RETURN(const BunkerNetwork network, MakeNetwork());
    PutCards(wanted_, network, &spec);
    absl::StatusOr<VmHandle> vm = parts_.vmm.Start(spec, Journalled(/*is_clone=*/false), cancel_);
    RETURN_IF_ERROR(Annotate(vm.status(), "starting the VM"));
    running_->vm = *std::move(vm);
    const absl::Status settled = Settle(begin, ConfigFor(wanted_));
    // The guest names what it could not do (an odd host name, say); it serves all the same.
    if (settled.code() != absl::StatusCode::kFailedPrecondition || !running_->channel->ready())
      return settled;
    Log(Severity::kWarning, "guest.configure_problem",
        {{"bunker", wanted_.bunker_id()}, {"problem", std::string(settled.message())}});
    return absl::OkStatus();
  }

  // From a VM that runs to a guest that has its own name, time and randomness.
  absl::Status Settle(absl::Duration begin, guest::v1::GuestConfig config) {
    if (!running_->channel) {
      PutRecord(running_->vm.record(), &running_->row);
      running_->channel = OpenGuestChannel(parts_.vmm, running_->row);
    }
    RETURN_IF_ERROR(WaitForGuest());
    RETURN_IF_ERROR(GrowFiles());
    link::v1::Timings* timings = running_->row.mutable_observed()->mutable_timings();
    timings->set_boot_ms(MsSince(begin));
    const absl::Duration ready = MonotonicTime();
    config.set_realtime_ns(static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())));
    const absl::Status configured = Configure(config);
    timings->set_agent_ms(MsSince(ready));
    return configured;
  }

  VmSpec Form() const {
    return FormOf(options_, parts_.images, running_->row.recipe_digest(),
                  {wanted_.cpu_millicores(), wanted_.memory_mb(), HasNetworkCard(wanted_)});
  }

  VmSpec Spec() const {
    VmSpec spec = Form();
    spec.folder = running_->row.folder();
    spec.rw_disk = disk_.empty() ? spec.folder + "/rw.ext4" : disk_;
    spec.uid = uid_;
    spec.disk_bytes_per_s = wanted_.disk_bytes_per_s();
    spec.disk_iops = wanted_.disk_iops();
    return spec;
  }

  Vmm::Spawned Journalled(bool is_clone) {
    return [this, is_clone](const RunningVm& vm) -> absl::Status {
      PutRecord(vm, &running_->row);
      RETURN_IF_ERROR(
          Annotate(BoundVm(parts_.cgroups, Spec(), is_clone, vm.process.pid),
                   "the VM's control group"));
      return parts_.journal.PutVm(running_->row);
    };
  }

  // One that is kept appears under its name whole: a crash in between leaves none.
  absl::Status CopyTemplateDisk(const std::string& from) {
    if (!wanted_.keep_disk())
      return CopyRwDisk(from, running_->row.folder() + "/rw.ext4", wanted_.disk_mb(), uid_);
    const std::string part = disk_ + ".part";
    if (::unlink(part.c_str()) != 0 && errno != ENOENT) return ErrnoError(errno, "unlink " + part);
    RETURN_IF_ERROR(CopyRwDisk(from, part, wanted_.disk_mb(), uid_));
    if (::rename(part.c_str(), disk_.c_str()) != 0) return ErrnoError(errno, "rename " + part);
    return SyncFolder(options_.disk_dir);
  }

  absl::Status MakeDisk() {
    disk_ = running_->row.folder() + "/rw.ext4";
    if (wanted_.keep_disk()) return TakeKeptDisk();
    if (!wanted_.snapshot_id().empty()) return CopySnapshot();
    return Annotate(MakeRwDisk(disk_, wanted_.disk_mb(), uid_), "making the bunker's disk");
  }

  absl::Status TakeKeptDisk() {
    ASSIGN_OR_RETURN(disk_, KeptDiskPath(options_.disk_dir, wanted_.bunker_id()));
    if (fs::exists(disk_)) {
      // Each VM has a user of its own, and nobody else's file.
      if (::chown(disk_.c_str(), uid_, uid_) != 0) return ErrnoError(errno, "chown " + disk_);
      // A first start that did not come to its end may not have got to it.
      grows_ = !wanted_.snapshot_id().empty() && !wanted_.disk_expected();
      return absl::OkStatus();
    }
    if (wanted_.disk_expected()) {
      return ReasonError(absl::StatusCode::kDataLoss, "DISK_LOST",
                         "the bunker's disk of before is not on this worker any more: " + disk_ +
                             " is missing; restore that file, or delete the bunker");
    }
    if (!wanted_.snapshot_id().empty()) {
      RETURN_IF_ERROR(CopySnapshot());
    } else {
      RETURN_IF_ERROR(Annotate(MakeRwDisk(disk_, wanted_.disk_mb(), uid_),
                               "making the bunker's disk"));
    }
    return SyncFolder(options_.disk_dir);
  }

  // Whole and durable before it has its name: a start that finds it takes it as it is.
  absl::Status CopySnapshot() {
    ASSIGN_OR_RETURN(const std::string source,
                     KeptDiskPath(options_.snapshot_dir, wanted_.snapshot_id()));
    struct stat info {};
    if (::stat(source.c_str(), &info) != 0) {
      return ReasonError(absl::StatusCode::kDataLoss, "SNAPSHOT_LOST",
                         "the snapshot's file is not on this worker any more: " + source +
                             "; create from another snapshot, or from the image");
    }
    const uint64_t bytes = uint64_t{wanted_.disk_mb()} << 20;
    grows_ = bytes > static_cast<uint64_t>(info.st_size);
    const std::string temporary = disk_ + ".new";
    if (::unlink(temporary.c_str()) != 0 && errno != ENOENT)
      return ErrnoError(errno, "remove " + temporary);
    RETURN_IF_ERROR(CopyRwDisk(source, temporary, wanted_.disk_mb(), uid_,
                               [this] { return cancel_.Check(); }));
    const UniqueFd copy(::open(temporary.c_str(), O_RDONLY | O_CLOEXEC));
    if (!copy || ::fsync(copy.get()) != 0) return ErrnoError(errno, "write out " + temporary);
    if (::rename(temporary.c_str(), disk_.c_str()) != 0)
      return ErrnoError(errno, "name " + disk_);
    return absl::OkStatus();
  }

  // A copy that is larger than its snapshot: the guest makes its files as large, before anybody
  // uses it. One that can't would lack what its row promises.
  absl::Status GrowFiles() {
    if (!grows_) return absl::OkStatus();
    guest::v1::GuestConfig config;
    config.set_rw_disk_bytes(uint64_t{wanted_.disk_mb()} << 20);
    const absl::Status grown = Configure(config);
    if (grown.ok()) return grown;
    return absl::InternalError("growing the copy of the snapshot: " +
                               std::string(grown.message()));
  }

  // In slices, so that a VMM which ends during the boot is noticed at once.
  absl::Status WaitForGuest() {
    const Deadline deadline(options_.boot_deadline);
    for (;;) {
      const absl::Status ready = running_->channel->WaitReady(kWaitSlice, &cancel_);
      if (ready.code() != absl::StatusCode::kDeadlineExceeded) return ready;
      if (running_->vm.process().HasEnded()) return DescribeEarlyEnd();
      if (deadline.Expired()) {
        return Annotate(ready, "the guest did not answer within " +
                                   absl::FormatDuration(options_.boot_deadline) +
                                   " (vm.boot_deadline_s)");
      }
    }
  }

  absl::Status DescribeEarlyEnd() {
    const absl::StatusOr<VmExit> exit = parts_.vmm.Reap(running_->vm);
    if (!exit.ok()) return exit.status();
    return absl::InternalError("the VM ended while its guest booted: " +
                               DescribeExit(exit->process) + ". " + exit->detail);
  }

  absl::Status Configure(const guest::v1::GuestConfig& config) {
    // A guest that never answers must not outlast a cancel: ending the VM ends the wait.
    cancel_.SetCallback([fd = running_->vm.exit_fd()] {
      ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
    });
    const absl::Status configured = running_->channel->Configure(config, kConfigureTimeout);
    cancel_.ClearCallback();
    RETURN_IF_ERROR(cancel_.Check());
    return configured;
  }

  const BunkerJobParts& parts_;
  const BunkerJobOptions& options_;
  const link::v1::BunkerAssignment& wanted_;
  uid_t uid_;
  std::string disk_;
  bool grows_ = false;  // its files have still to become as large as it
  bool no_network_ = false;  // it was asked for, and could not be made
  CancelToken& cancel_;
  std::shared_ptr<RunningBunker> running_;  // null once handed over
};

}  // namespace

// Polite: the guest ends its processes and flushes its disk before the VMM is asked. A guest that
// does not answer costs `grace` and no more.
static absl::Status AskGuestToEnd(RunningBunker& bunker, absl::Duration grace) {
  if (!bunker.channel->ready()) return absl::OkStatus();
  RETURN_IF_ERROR(bunker.channel->Shutdown(grace));
  bunker.vm.process().Wait(grace).status().IgnoreError();  // Vmm::Stop goes on from either
  return absl::OkStatus();
}

VmSpec FormOf(const BunkerJobOptions& options, const ImageStore& images,
              const std::string& recipe_digest, const VmShape& shape) {
  VmSpec form;
  form.base_disk = images.RootfsPath(recipe_digest);
  form.kernel = options.kernel;
  form.initrd = options.initrd;
  form.vcpus = (shape.cpu_millicores + 999) / 1000;
  form.memory_mb = std::max(shape.memory_mb, kMinGuestMemoryMb);
  if (shape.network_card) form.nic_mac = kGuestMac;
  form.accelerator = options.accelerator;
  return form;
}

StartOutcome StartBunker(const BunkerJobParts& parts, const BunkerJobOptions& options,
                         const link::v1::BunkerAssignment& wanted, const std::string& recipe_digest,
                         uid_t uid, CancelToken& cancel) {
  StartJob job(parts, options, wanted, recipe_digest, uid, cancel);
  return job.Run();
}

absl::Status StopBunker(const BunkerJobParts& parts, RunningBunker& bunker, absl::Duration grace,
                        RowAfter row_after) {
  v1::VmRow& row = bunker.row;
  const std::string& id = row.wanted().bunker_id();
  const auto tell = [&](const char* step, const absl::Status& status) {
    if (!status.ok())
      Log(Severity::kWarning, "vm.stop_step_failed",
          {{"bunker", id}, {"step", step}, {"error", std::string(status.message())}});
  };
  if (bunker.vm.process()) {
    // A paused guest can't flush what it has written to the disk that stays.
    if (row.observed().status() == link::v1::BunkerObservation::PAUSED && row.wanted().keep_disk())
      tell("resume", parts.vmm.Resume(bunker.vm.record()));
    if (bunker.channel) tell("guest shutdown", AskGuestToEnd(bunker, grace));
    const absl::Status stopped = parts.vmm.Stop(bunker.vm, grace).status();
    tell("stop", stopped);
    RETURN_IF_ERROR(stopped);
  }
  bunker.channel.reset();
  // The row before the folder: after a crash in between, the end is known and the folder swept.
  if (row_after == RowAfter::kFinal) {
    if (row.observed().status() == link::v1::BunkerObservation::RUNNING ||
        row.observed().status() == link::v1::BunkerObservation::PAUSED)
      row.mutable_observed()->set_status(link::v1::BunkerObservation::STOPPED);
    tell("journal", parts.journal.PutVm(row));
  }
  tell("remove folder", RemoveVmFolder(parts, row.folder()));
  if (row_after == RowAfter::kRemoved)
    tell("journal", parts.journal.RemoveVm(id, row.wanted().incarnation()));
  parts.images.Unpin(row.recipe_digest());
  return absl::OkStatus();
}

absl::Status RemoveVmFolder(const BunkerJobParts& parts, const std::string& folder) {
  // Before the folder: as long as that is there, the next life finds the network by its name.
  if (parts.networks != nullptr && fs::exists(folder))
    RETURN_IF_ERROR(parts.networks->TearDown(folder));
  return RemoveVmTraces(parts.vmm, parts.cgroups, folder);
}

}  // namespace bunker::agent
