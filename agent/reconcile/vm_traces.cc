#include "agent/reconcile/vm_traces.h"

#include <filesystem>
#include <utility>

#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;

// Beside the guest's memory: QEMU's heap and the code that it makes of the guest's.
constexpr uint64_t kVmOverheadMb = 96;
constexpr uint32_t kMaxVmTasks = 256;  // threads of QEMU; measured: below 20

}  // namespace

RunningVm RecordOf(const v1::VmRow& row) {
  RunningVm vm;
  vm.driver = row.driver();
  vm.process.pid = row.pid();
  vm.process.start_time_ticks = row.start_time_ticks();
  vm.process.boot_id = row.boot_id();
  vm.uid = row.uid();
  vm.folder = row.folder();
  vm.channel_path = row.channel_path();
  vm.control_path = row.control_path();
  vm.accelerator = row.hardware_accelerated() ? Accelerator::kHardware : Accelerator::kSoftware;
  return vm;
}

void PutRecord(const RunningVm& vm, v1::VmRow* row) {
  row->set_driver(vm.driver);
  row->set_pid(vm.process.pid);
  row->set_start_time_ticks(vm.process.start_time_ticks);
  row->set_boot_id(vm.process.boot_id);
  row->set_uid(vm.uid);
  row->set_folder(vm.folder);
  row->set_channel_path(vm.channel_path);
  row->set_control_path(vm.control_path);
  row->set_hardware_accelerated(vm.accelerator == Accelerator::kHardware);
}

absl::Status BoundVm(const CgroupRoot* root, const VmSpec& spec, bool is_clone, pid_t pid) {
  if (root == nullptr) return absl::OkStatus();
  const std::string name = fs::path(spec.folder).filename();
  CgroupLimits limits;
  const uint64_t guest_mb = spec.memory_mb * (is_clone ? 2 : 1);
  limits.memory_bytes = (guest_mb + kVmOverheadMb) << 20;
  limits.pids = kMaxVmTasks;
  RETURN_IF_ERROR(root->Create(name, limits));
  return root->Add(name, pid);
}

absl::Status BoundVmCpu(const CgroupRoot* root, const std::string& folder,
                        uint32_t cpu_millicores) {
  if (root == nullptr) return absl::OkStatus();
  CgroupLimits limits;
  limits.cpu_millicores = cpu_millicores;
  return root->Create(fs::path(folder).filename(), limits);
}

absl::Status RemoveVmTraces(Vmm& vmm, const CgroupRoot* root, const std::string& folder) {
  if (root != nullptr) {
    const absl::Status removed = root->Remove(fs::path(folder).filename());
    if (!removed.ok())
      Log(Severity::kWarning, "vm.cgroup_not_removed",
          {{"folder", folder}, {"error", std::string(removed.message())}});
  }
  if (!fs::exists(folder)) return absl::OkStatus();
  RETURN_IF_ERROR(vmm.Clean(folder));
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) return absl::InternalError("removing " + folder + ": " + error.message());
  return absl::OkStatus();
}

std::shared_ptr<GuestChannel> OpenGuestChannel(Vmm& vmm, const v1::VmRow& row) {
  GuestChannel::Options options;
  options.name = row.wanted().bunker_id();
  options.connect = [&vmm, record = RecordOf(row)] { return vmm.OpenChannel(record); };
  return std::make_shared<GuestChannel>(std::move(options));
}

}  // namespace bunker::agent
