#include "agent/vm/trial_boot.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "agent/vm/qmp_client.h"
#include "agent/vm/rw_disk.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr uint32_t kMemoryMb = 256;

class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& parent) : path_(parent + "/trial.XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// True where the guest holds its end of the channel open now.
absl::StatusOr<bool> GuestHasOpened(QmpClient& qmp, const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::string answer, qmp.Execute("query-chardev", "", deadline));
  const nlohmann::json devices = nlohmann::json::parse(answer, nullptr, false);
  if (!devices.is_array()) return absl::UnavailableError("the VMM does not list its channels");
  for (const nlohmann::json& device : devices) {
    if (!device.is_object() || !device.contains("label") || device.at("label") != "channel") {
      continue;
    }
    return device.contains("frontend-open") && device.at("frontend-open") == true;
  }
  return absl::UnavailableError("the VMM has no channel");
}

absl::Status AwaitGuest(const RunningVm& record, const Deadline& deadline) {
  ASSIGN_OR_RETURN(QmpClient qmp, QmpClient::Connect(record.control_path, deadline));
  // Asked once, then told: the events of this connection leave no gap behind the question.
  ASSIGN_OR_RETURN(bool opened, GuestHasOpened(qmp, deadline));
  while (!opened) {
    absl::StatusOr<std::string> told = qmp.NextEvent(deadline);
    if (absl::IsDeadlineExceeded(told.status())) {
      return absl::DeadlineExceededError("its PID 1 did not come up in time");
    }
    ASSIGN_OR_RETURN(const std::string event, std::move(told));
    if (event.rfind("SHUTDOWN", 0) == 0 || event.rfind("STOP", 0) == 0) {
      return absl::UnavailableError(absl::StrCat("the guest stopped: ", event));
    }
    if (event.rfind("VSERPORT_CHANGE", 0) == 0) {
      ASSIGN_OR_RETURN(opened, GuestHasOpened(qmp, deadline));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTrialBoot(Vmm& vmm, const TrialBoot& trial, CancelToken& cancel) {
  const Deadline deadline(trial.timeout);
  const ScratchFolder scratch(trial.scratch_dir);
  if (scratch.path().empty()) {
    return ErrnoError(errno, absl::StrCat("make a folder in ", trial.scratch_dir));
  }
  VmSpec spec;
  spec.folder = scratch.path();
  spec.base_disk = scratch.path() + "/base";
  spec.rw_disk = scratch.path() + "/rw";
  spec.kernel = trial.kernel;
  spec.initrd = trial.initrd;
  spec.memory_mb = kMemoryMb;
  spec.accelerator = trial.accelerator;
  spec.uid = trial.uid;
  spec.start_timeout = trial.timeout;
  RETURN_IF_ERROR(MakeRwDisk(spec.base_disk, kMinRwDiskMb, 0));
  RETURN_IF_ERROR(MakeRwDisk(spec.rw_disk, kMinRwDiskMb, trial.uid));
  if (chmod(spec.base_disk.c_str(), 0444) != 0) return ErrnoError(errno, "chmod");
  // Not journalled: should the agent die meanwhile, the guest finds no image on its disk and
  // powers off by itself.
  ASSIGN_OR_RETURN(VmHandle vm, vmm.Start(spec, [](const RunningVm&) { return absl::OkStatus(); },
                                          cancel));
  const absl::Status awaited = AwaitGuest(vm.record(), deadline);
  absl::StatusOr<VmExit> end = vmm.Kill(vm);
  RETURN_IF_ERROR(vmm.Clean(spec.folder));
  RETURN_IF_ERROR(cancel.Check());
  if (!end.ok()) return end.status();
  if (awaited.ok()) return absl::OkStatus();
  return Annotate(awaited, absl::StrCat("boot the guest kernel (", DescribeExit(end->process), "; ",
                                        end->detail.empty() ? "no last words" : end->detail, ")"));
}

}  // namespace bunker::agent
