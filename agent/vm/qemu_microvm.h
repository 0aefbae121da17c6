// QEMU's `microvm` machine as a Vmm driver: cold boots of a Linux kernel, two virtio disks, one
// channel, no network card, in the cage of jail.h. The rules for its argv are in vm_args.h.
#pragma once

#include <string>

#include "agent/vm/vmm.h"

namespace bunker::agent {

struct QemuOptions {
  std::string binary = "/usr/bin/qemu-system-x86_64";
  std::string kvm_cpu_model;    // "": PinnedCpuModel() of this host's vendor
  // For the probe's trial boot.
  std::string accelerator = "auto";  // auto | kvm | tcg
  std::string kernel;
  std::string initrd;
  std::string scratch_dir;      // root's, on a disk; the probe makes and removes a folder in it
  uid_t probe_uid = 0;          // nobody else's
};

// Thread-safe.
class QemuMicrovm final : public Vmm {
 public:
  explicit QemuMicrovm(QemuOptions options);

  std::string Name() const override { return "qemu-microvm"; }
  VmmCapabilities Capabilities() const override { return {.pause = true}; }
  absl::StatusOr<AcceleratorVerdict> Probe(CancelToken& cancel) override;
  absl::StatusOr<VmHandle> Start(const VmSpec& spec, const Spawned& spawned,
                                 CancelToken& cancel) override;
  absl::StatusOr<VmHandle> Adopt(const RunningVm& record) override;
  absl::StatusOr<UniqueFd> OpenChannel(const RunningVm& record) override;
  absl::StatusOr<VmExit> Stop(VmHandle& vm, absl::Duration grace) override;
  absl::StatusOr<VmExit> Kill(VmHandle& vm) override;
  absl::Status Pause(const RunningVm& record) override;
  absl::Status Resume(const RunningVm& record) override;
  absl::StatusOr<VmExit> Reap(VmHandle& vm) override;
  absl::StatusOr<std::string> ReadConsole(const RunningVm& record) override;
  absl::Status Clean(const std::string& folder) override;

 private:
  const QemuOptions options_;
};

}  // namespace bunker::agent
