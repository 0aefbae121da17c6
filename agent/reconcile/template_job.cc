#include "agent/reconcile/template_job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "agent/exec/guest_channel.h"
#include "agent/reconcile/guest_shell.h"
#include "agent/reconcile/network_request.h"
#include "agent/reconcile/vm_traces.h"
#include "agent/vm/rw_disk.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kWaitSlice = absl::Milliseconds(500);
// What nearly every first command reads: the loader, libc, the shell, the user's entries. Whatever
// of it an image lacks stays cold.
constexpr char kWarmUp[] = "ls -l / ; id; env; cat /etc/hostname; /bin/true; echo";

uint64_t AllocatedBytes(int fd) {
  struct stat info{};
  return fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

// A VM that is journalled while it lives: a crash of the agent in between leaves nothing behind.
class TemplateJob {
 public:
  TemplateJob(Vmm& vmm, Journal& journal, const TemplateOrder& order, CancelToken& cancel)
      : vmm_(vmm),
        journal_(journal),
        order_(order),
        cancel_(cancel),
        deadline_(order.deadline),
        made_(std::make_shared<Template>()) {
    row_.mutable_wanted()->set_bunker_id(order.name);
    row_.mutable_wanted()->set_incarnation(1);
    row_.mutable_observed()->set_status(link::v1::BunkerObservation::PROVISIONING);
    row_.set_recipe_digest(order.recipe_digest);
    row_.set_folder(order.spec.folder);
  }

  absl::StatusOr<std::shared_ptr<const Template>> Run() {
    const absl::Status status = Steps();
    const absl::Status ended = End();
    RETURN_IF_ERROR(status);
    RETURN_IF_ERROR(ended);
    // The disk is nobody's now but this process's.
    if (chown(made_->disk.c_str(), 0, 0) != 0) return ErrnoError(errno, made_->disk);
    return std::shared_ptr<const Template>(std::move(made_));
  }

 private:
  absl::Status Steps() {
    RETURN_IF_ERROR(cancel_.Check());
    VmSpec spec = order_.spec;
    made_->key = order_.key;
    made_->recipe_digest = order_.recipe_digest;
    made_->disk_mb = order_.disk_mb;
    made_->folder = spec.folder;
    made_->disk = spec.folder + "/rw.ext4";
    RETURN_IF_ERROR(MakeFolders(spec.folder, 0700));
    RETURN_IF_ERROR(MakeRwDisk(made_->disk, order_.disk_mb, spec.uid));
    spec.rw_disk = made_->disk;
    spec.snapshots = true;
    spec.background = true;
    spec.start_timeout = deadline_.Remaining();
    ASSIGN_OR_RETURN(std::string basis, vmm_.SnapshotBasis(spec));
    ASSIGN_OR_RETURN(vm_, vmm_.Start(
                              spec,
                              [this](const RunningVm& vm) {
                                PutRecord(vm, &row_);
                                return journal_.PutVm(row_);
                              },
                              cancel_));
    RETURN_IF_ERROR(WarmUp());
    RETURN_IF_ERROR(vmm_.Pause(vm_.record()));
    ASSIGN_OR_RETURN(made_->snapshot, vmm_.Snapshot(vm_.record(), std::move(basis)));
    made_->bytes = AllocatedBytes(made_->snapshot.memory.get()) +
                   AllocatedBytes(made_->snapshot.devices.get());
    return absl::OkStatus();
  }

  absl::Status WarmUp() {
    cancel_.SetCallback([fd = vm_.exit_fd()] {
      ::syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0);
    });
    const std::shared_ptr<GuestChannel> channel = OpenGuestChannel(vmm_, row_);
    absl::Status status = WaitForGuest(*channel);
    if (status.ok()) status = RunShell(*channel);
    cancel_.ClearCallback();
    return status;
  }

  absl::Status WaitForGuest(GuestChannel& channel) {
    for (;;) {
      const absl::Status ready = channel.WaitReady(kWaitSlice, &cancel_);
      if (ready.code() != absl::StatusCode::kDeadlineExceeded) return ready;
      if (vm_.process().HasEnded()) return absl::UnavailableError("its VM ended while it booted");
      if (deadline_.Expired()) return ready;
    }
  }

  // The guest gets randomness and time as any other, and its card's address, which is every
  // clone's; no name and no resolver, so that none is written to its disk.
  absl::Status RunShell(GuestChannel& channel) {
    guest::v1::GuestConfig config = FreshConfig();
    if (!order_.spec.nic_mac.empty()) PutGuestCard(&config);
    RETURN_IF_ERROR(channel.Configure(config, deadline_.Remaining()));
    return RunWarmUpShell(channel, kWarmUp, deadline_.Remaining(), cancel_);
  }

  absl::Status End() {
    if (vm_.process()) RETURN_IF_ERROR(vmm_.Kill(vm_).status());
    RETURN_IF_ERROR(vmm_.Clean(order_.spec.folder));
    return journal_.RemoveVm(order_.name, 1);
  }

  Vmm& vmm_;
  Journal& journal_;
  const TemplateOrder& order_;
  CancelToken& cancel_;
  const Deadline deadline_;
  std::shared_ptr<Template> made_;
  v1::VmRow row_;
  VmHandle vm_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Template>> MakeTemplate(Vmm& vmm, Journal& journal,
                                                             const TemplateOrder& order,
                                                             CancelToken& cancel) {
  return TemplateJob(vmm, journal, order, cancel).Run();
}

}  // namespace bunker::agent
