// The VMM's command line as a pure value: what is in it is what a golden test shows, and nothing
// of it is a tenant's text; a MAC that a tenant chose was read and written anew.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/vm/vmm.h"

namespace bunker::agent {

// Names inside the jail; see jail.h. Nothing of the host's paths reaches the argv, so neither can
// a comma or a newline in one of them.
inline constexpr char kJailBaseDisk[] = "/vm/base";
inline constexpr char kJailRwDisk[] = "/vm/rw";
inline constexpr char kJailKernel[] = "/vm/kernel";
inline constexpr char kJailInitrd[] = "/vm/initrd";

// Inherited listening sockets.
inline constexpr int kChannelFd = 3;
inline constexpr int kControlFd = 4;
// Inherited files, where memory is kFile or kRestored, and where it is kRestored.
inline constexpr int kMemoryFd = 5;
inline constexpr int kDevicesFd = 6;
// Where a jailed VMM finds its own open files by number.
inline constexpr char kJailFds[] = "/vm/fds";

// Where the guest's memory lies.
enum class GuestMemory {
  kAnonymous,
  kFile,      // is kMemoryFd, so that it can be copied
  kRestored,  // a private copy of kMemoryFd, with the devices as kDevicesFd has them
};

// The CPU model that KVM guests get: named and versioned, so that equal hosts give equal CPUs.
// `vendor` is "AuthenticAMD" or "GenuineIntel" as /proc/cpuinfo has it, "" for others.
std::string PinnedCpuModel(const std::string& vendor);

struct QemuArgs {
  std::string binary;
  std::string name;            // [A-Za-z0-9._-]+: the folder's name, for people reading `ps`
  uint32_t vcpus = 1;
  uint32_t memory_mb = 256;
  Accelerator accelerator = Accelerator::kSoftware;
  std::string kvm_cpu_model;   // only for kHardware
  uint64_t tsc_khz = 0;        // the host's; 0 leaves it out (then stock kernels hang)
  std::vector<std::string> kernel_args;
  uint32_t console_kib = 64;
  GuestMemory memory = GuestMemory::kAnonymous;
  std::string nic_mac;         // "": no network card; else on TapFdOf()
  std::vector<std::string> more_macs;  // of further cards, on the descriptors after that
  uint64_t disk_bytes_per_s = 0;  // 0: no limit, as the next
  uint32_t disk_iops = 0;
};

// The inherited tap device: it comes after all the others there are.
int TapFdOf(const QemuArgs& args);

// The guest kernel's command line: ours, then `kernel_args`.
std::string KernelCommandLine(const QemuArgs& args);

// argv, argv[0] included.
std::vector<std::string> BuildQemuArgs(const QemuArgs& args);

}  // namespace bunker::agent
