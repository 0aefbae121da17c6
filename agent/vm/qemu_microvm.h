// QEMU's `microvm` machine as a Vmm driver: boots of a Linux kernel and restored snapshots, two
// virtio disks, one channel, no network card, in the cage of jail.h. The rules for its argv are in
// vm_args.h.
#pragma once

#include <string>

#include "agent/vm/vm_args.h"
#include "agent/vm/vmm.h"
#include "common/proc/deadline.h"

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
  VmmCapabilities Capabilities() const override { return kCapabilities; }
  absl::StatusOr<AcceleratorVerdict> Probe(CancelToken& cancel) override;
  absl::StatusOr<VmHandle> Start(const VmSpec& spec, const Spawned& spawned,
                                 CancelToken& cancel) override;
  absl::StatusOr<VmHandle> Adopt(const RunningVm& record) override;
  absl::StatusOr<UniqueFd> OpenChannel(const RunningVm& record) override;
  absl::StatusOr<VmExit> Stop(VmHandle& vm, absl::Duration grace) override;
  absl::StatusOr<VmExit> Kill(VmHandle& vm) override;
  absl::Status Pause(const RunningVm& record) override;
  absl::Status Resume(const RunningVm& record) override;
  absl::StatusOr<std::string> SnapshotBasis(const VmSpec& spec) override;
  absl::StatusOr<VmSnapshot> Snapshot(const RunningVm& record, std::string basis) override;
  absl::Status Save(const RunningVm& record, int memory_fd, int devices_fd) override;
  absl::Status SaveAhead(const RunningVm& record, int memory_fd) override;
  absl::StatusOr<VmHandle> Restore(const VmSpec& spec, const VmSnapshot& snapshot,
                                   const Spawned& spawned, CancelToken& cancel) override;
  absl::Status GrowDisk(const RunningVm& record, uint64_t bytes) override;
  absl::StatusOr<VmExit> Reap(VmHandle& vm) override;
  absl::StatusOr<std::string> ReadConsole(const RunningVm& record) override;
  absl::Status Clean(const std::string& folder) override;

 private:
  static constexpr VmmCapabilities kCapabilities{
      .snapshots = true, .pause = true, .grow_disk = true};

  // The program with all links followed; kNotFound with the remedy.
  absl::StatusOr<std::string> Binary() const;
  QemuArgs ArgsFor(const VmSpec& spec, const std::string& binary) const;
  // Cold where `snapshot` is null.
  absl::StatusOr<VmHandle> Launch(const VmSpec& spec, const VmSnapshot* snapshot,
                                  const Spawned& spawned, CancelToken& cancel);
  absl::Status CheckBasis(const VmSpec& spec, const VmSnapshot& snapshot);

  const QemuOptions options_;
};

// OK once the guest of a VM that was started with a snapshot runs; ends with the connection where
// the VMM refuses the snapshot and ends.
absl::Status AwaitRestored(const std::string& control_path, const Deadline& deadline);

}  // namespace bunker::agent
