#include "agent/vm/vm_args.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace bunker::agent {

std::string PinnedCpuModel(const std::string& vendor) {
  if (vendor == "AuthenticAMD") return "EPYC-v3";
  if (vendor == "GenuineIntel") return "Broadwell-v4";
  return "Westmere-v1";
}

int TapFdOf(const QemuArgs& args) {
  switch (args.memory) {
    case GuestMemory::kAnonymous:
      return kControlFd + 1;
    case GuestMemory::kFile:
      return kMemoryFd + 1;
    case GuestMemory::kRestored:
      return kDevicesFd + 1;
  }
  return -1;
}

std::string KernelCommandLine(const QemuArgs& args) {
  std::vector<std::string> words = {
      "quiet",
      "console=hvc0",   // the bounded ring
      "rdinit=/init",
      "panic=-1",       // a panic ends the VM at once, it does not hang
      "reboot=t",       // by triple fault: no legacy device is there to do it
  };
  if (args.tsc_khz != 0) {
    // With acpi=on the machine has no timer that a kernel could measure its TSC against; without
    // this word a stock kernel hangs. The guest's TSC runs at the host's rate.
    words.push_back(absl::StrCat("tsc_early_khz=", args.tsc_khz));
    words.push_back("tsc=reliable");
  }
  words.insert(words.end(), {"no_timer_check", "noreplace-smp"});
  // An emulated CPU speculates nothing, so there is nothing to mitigate.
  if (args.accelerator == Accelerator::kSoftware) words.push_back("mitigations=off");
  words.insert(words.end(), args.kernel_args.begin(), args.kernel_args.end());
  return absl::StrJoin(words, " ");
}

namespace {

// Where the memory lies is no part of a snapshot's form: what is taken of kFile restores as
// kRestored.
void AddMemory(const QemuArgs& args, std::vector<std::string>* argv) {
  std::string machine = "microvm,acpi=on,isa-serial=off";
  if (args.memory != GuestMemory::kAnonymous) {
    const bool restored = args.memory == GuestMemory::kRestored;
    argv->insert(argv->end(),
                 {"-object", absl::StrCat("memory-backend-file,id=ram,size=", args.memory_mb,
                                          "M,share=", restored ? "off" : "on", ",mem-path=",
                                          kJailFds, "/", kMemoryFd)});
    absl::StrAppend(&machine, restored ? ",suppress-vmdesc=on" : "", ",memory-backend=ram");
  }
  argv->insert(argv->end(), {"-M", machine});
  if (args.memory == GuestMemory::kRestored) {
    argv->insert(argv->end(), {"-global", "migration.send-configuration=off", "-incoming",
                               absl::StrCat("fd:", kDevicesFd)});
  }
}

// One group for both disks: what a guest may do to the host's is one sum.
std::string DiskLimits(const QemuArgs& args) {
  std::string limits;
  if (args.disk_bytes_per_s > 0)
    absl::StrAppend(&limits, ",throttling.bps-total=", args.disk_bytes_per_s);
  if (args.disk_iops > 0) absl::StrAppend(&limits, ",throttling.iops-total=", args.disk_iops);
  return limits.empty() ? "" : absl::StrCat(",throttling.group=disks", limits);
}

}  // namespace

std::vector<std::string> BuildQemuArgs(const QemuArgs& args) {
  const bool hardware = args.accelerator == Accelerator::kHardware;
  std::vector<std::string> argv = {args.binary, "-name", args.name};
  const auto add = [&argv](std::string option, std::string value) {
    argv.push_back(std::move(option));
    argv.push_back(std::move(value));
  };

  // Nothing that isn't listed here: no default devices, no host-wide config, no NIC, no display.
  argv.insert(argv.end(), {"-no-user-config", "-nodefaults", "-no-reboot"});
  if (args.nic_mac.empty()) add("-nic", "none");
  add("-display", "none");
  add("-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");

  // acpi=on: stock kernels find the devices through it (theirs can't take them from the command
  // line). Only virtio 1.
  AddMemory(args, &argv);
  add("-global", "virtio-mmio.force-legacy=false");
  if (hardware) {
    add("-accel", "kvm");
    // No nested guests: they were the way out of CVE-2026-53359.
    add("-cpu", absl::StrCat(args.kvm_cpu_model, ",-vmx,-svm"));
  } else {
    add("-accel", "tcg,tb-size=32");  // MiB of translated code; the default reserves 1 GiB
    // Without "fast string" the kernel copies by eight bytes, not by one: TCG runs `rep movsb` as a
    // loop, and a pipe moved 34–38 MB/s with it and 78–119 without.
    add("-cpu", "max,-erms,-fsrm");
  }
  add("-smp", absl::StrCat(args.vcpus));
  add("-m", absl::StrCat(args.memory_mb, "M"));

  add("-kernel", kJailKernel);
  add("-initrd", kJailInitrd);
  add("-append", KernelCommandLine(args));

  // Image locks are required, not just tried: a second writer of the rw disk is refused.
  const std::string limits = DiskLimits(args);
  add("-drive", absl::StrCat("id=base,if=none,format=raw,read-only=on,file.driver=file,",
                             "file.locking=on,file.filename=", kJailBaseDisk, limits));
  add("-device", "virtio-blk-device,drive=base,serial=base,scsi=off");
  add("-drive", absl::StrCat("id=rw,if=none,format=raw,cache=writeback,discard=unmap,",
                             "detect-zeroes=unmap,file.driver=file,file.locking=on,file.filename=",
                             kJailRwDisk, limits));
  add("-device", "virtio-blk-device,drive=rw,serial=rw,scsi=off");

  if (!args.nic_mac.empty()) {
    add("-netdev", absl::StrCat("tap,id=net,fd=", TapFdOf(args)));
    add("-device", absl::StrCat("virtio-net-device,netdev=net,mac=", args.nic_mac));
  }
  for (size_t i = 0; i < args.more_macs.size(); ++i) {
    const std::string id = absl::StrCat("net", i + 1);
    const int fd = TapFdOf(args) + 1 + static_cast<int>(i);
    add("-netdev", absl::StrCat("tap,id=", id, ",fd=", fd));
    add("-device", absl::StrCat("virtio-net-device,netdev=", id, ",mac=", args.more_macs[i]));
  }

  // One bus, two ports: 0 the console into a ring in memory (old bytes fall out, the host's disk
  // sees none of it), 1 the channel.
  add("-device", "virtio-serial-device,id=ports,max_ports=2");
  add("-chardev", absl::StrCat("ringbuf,id=console,size=", args.console_kib, "K"));
  add("-device", "virtconsole,bus=ports.0,nr=0,chardev=console");
  add("-chardev", absl::StrCat("socket,id=channel,fd=", kChannelFd, ",server=on,wait=off"));
  add("-device", "virtserialport,bus=ports.0,nr=1,chardev=channel,id=agent,name=agent");
  add("-chardev", absl::StrCat("socket,id=control,fd=", kControlFd, ",server=on,wait=off"));
  add("-mon", "chardev=control,mode=control");
  return argv;
}

}  // namespace bunker::agent
