// What the agent wants of a virtual machine monitor, in words that hold for any of them.
//
// A VM is a process that outlives the agent. Everything needed to find it again is in its
// RunningVm record, which the caller journals BEFORE the VM's program starts (see Start). All
// paths of a record lie in the VM's own folder.
//
// Calls block (milliseconds; each says its bound): run them on worker threads. A driver is
// thread-safe; a VmHandle is not, but for watching exit_fd().
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/cancel.h"
#include "common/base/unique_fd.h"
#include "common/proc/process.h"

namespace bunker::agent {

enum class Accelerator { kHardware, kSoftware };

// "kvm" or "tcg": the words of the link protocol and of the agent's config.
const char* AcceleratorName(Accelerator accelerator);

// A network card beside the first one.
struct VmCard {
  std::string mac;
  int tap_fd = -1;
};

// What to start. The caller made the folder and the disks; the driver makes the rest.
struct VmSpec {
  std::string folder;       // exists, owned by root, 0700; holds the sockets. ≤ 90 bytes, so that
                            // a socket's path fits the system's 107
  std::string base_disk;    // raw ext4, owned by root, 0444: shared by many VMs, never written
  std::string rw_disk;      // raw ext4, owned by `uid`, 0600: this VM's alone
  std::string kernel;       // readable for everyone
  std::string initrd;       // readable for everyone
  std::vector<std::string> kernel_args;  // added to the driver's own; generated words only
  uint32_t vcpus = 1;
  uint32_t memory_mb = 256;
  Accelerator accelerator = Accelerator::kSoftware;
  uid_t uid = 0;            // and gid: nobody else's, never 0
  std::string nic_mac;      // of the one network card, generated; "": none at all
  int tap_fd = -1;          // what the card is on; where there is none: -1
  std::vector<VmCard> more_cards;  // only beside that one; at most kMaxMoreCards
  uint64_t disk_bytes_per_s = 0;  // of both disks together; 0: no limit, as the next
  uint32_t disk_iops = 0;
  uint32_t console_kib = 64;             // kept of the guest's console output; a power of two
  absl::Duration start_timeout = absl::Seconds(20);  // until the VMM answers, not the guest
  bool snapshots = false;   // Snapshot() can be asked of it; restored VMs always can be
  // Gives way to others where the host's CPUs are short; until Resume().
  bool background = false;
};

inline constexpr size_t kMaxMoreCards = 7;

// A guest's memory and the state of its devices at one moment, without its disks. Many VMs may be
// restored from one, at the same time; none can change it.
struct VmSnapshot {
  std::string basis;  // Vmm::SnapshotBasis() of the VM that it was taken of
  UniqueFd memory;    // sealed memory files, closed on exec
  UniqueFd devices;
};

// A VM that exists: plain data, to be journalled as it is.
struct RunningVm {
  std::string driver;          // which driver may adopt it
  ProcessIdentity process;
  uid_t uid = 0;
  std::string folder;
  std::string channel_path;    // unix socket: the byte stream to the guest's agent
  std::string control_path;    // unix socket: the driver's own business
  Accelerator accelerator = Accelerator::kSoftware;

  bool operator==(const RunningVm&) const = default;
};

// How a VM ended, as far as can be known (an adopted VM's exit status can't).
struct VmExit {
  ProcessExit process;
  std::string detail;  // last words of the VMM, printable ASCII, "" where none or unknown
};

// A VM under this agent's watch. Dropping the handle leaves the VM running.
class VmHandle {
 public:
  VmHandle() = default;
  VmHandle(RunningVm record, ProcessHandle process, UniqueFd last_words)
      : record_(std::move(record)),
        process_(std::move(process)),
        last_words_(std::move(last_words)) {}
  VmHandle(VmHandle&&) noexcept = default;
  VmHandle& operator=(VmHandle&&) noexcept = default;

  const RunningVm& record() const { return record_; }
  ProcessHandle& process() { return process_; }
  // Becomes readable when the VM has ended; then call Vmm::Reap. Owned by the handle.
  int exit_fd() const { return process_.fd(); }
  // The VMM's stderr, non-blocking; none where adopted.
  int last_words_fd() const { return last_words_.get(); }

 private:
  RunningVm record_;
  ProcessHandle process_;
  UniqueFd last_words_;
};

struct VmmCapabilities {
  bool snapshots = false;
  bool pause = false;
  bool grow_disk = false;
};

// Which accelerator guests really run on here, and why.
struct AcceleratorVerdict {
  Accelerator accelerator = Accelerator::kSoftware;
  // Why not hardware: the step that failed, in words for the operator. "" where hardware works.
  std::string reason;
  absl::Duration took;
};

class Vmm {
 public:
  // Called once the VM's process exists and before it runs anything of the VMM: journal the
  // record here. An error ends the process, and Start returns that error. Should the agent die
  // before this has returned, the process ends by itself.
  using Spawned = std::function<absl::Status(const RunningVm&)>;

  virtual ~Vmm() = default;

  virtual std::string Name() const = 0;  // journalled as RunningVm::driver
  virtual VmmCapabilities Capabilities() const = 0;

  // Decides by running a guest. Some milliseconds to some seconds; cache the answer.
  virtual absl::StatusOr<AcceleratorVerdict> Probe(CancelToken& cancel) = 0;

  // Starts the VM and returns once the VMM answers on its control socket; the guest boots on.
  // After an error nothing is left but the folder and what the caller put into it. Bound:
  // spec.start_timeout.
  virtual absl::StatusOr<VmHandle> Start(const VmSpec& spec, const Spawned& spawned,
                                         CancelToken& cancel) = 0;

  // The VM of that record if it is still alive: the same process, not one that got its number.
  // kNotFound where it is gone.
  virtual absl::StatusOr<VmHandle> Adopt(const RunningVm& record) = 0;

  // A fresh connection to the guest's agent: a full-duplex byte stream, blocking mode, closed on
  // exec. One client at a time: another waits, connected but unanswered, until the first closes.
  virtual absl::StatusOr<UniqueFd> OpenChannel(const RunningVm& record) = 0;

  // Ends the VM now: asks the VMM to end (its disks get flushed), and after `grace` kills it. The
  // guest isn't asked: do that over the channel before. Returns once the process is gone; bound:
  // grace + 5 s. A VM that has ended already is no error.
  virtual absl::StatusOr<VmExit> Stop(VmHandle& vm, absl::Duration grace) = 0;

  // Without asking. Bound: 5 s.
  virtual absl::StatusOr<VmExit> Kill(VmHandle& vm) = 0;

  // Stops the guest's CPUs where they are, and its clocks with them; disks, memory and the host's
  // connections stay. What was asked of the guest waits. Bound: 2 s. Twice is fine.
  virtual absl::Status Pause(const RunningVm& record) = 0;

  // Lets a paused guest go on. Its clock is late by the pause: send it the time over the channel.
  // Bound: 2 s. A VM that runs is fine.
  virtual absl::Status Resume(const RunningVm& record) = 0;

  // Names all that a snapshot of this VM would depend on beside image, kernel, initrd and disks:
  // the VMM's build and devices, CPUs, memory, the rate of the host's clock. A snapshot is good for
  // a spec whose basis equals its own. Looks at files; about 1 ms.
  virtual absl::StatusOr<std::string> SnapshotBasis(const VmSpec& spec) = 0;

  // Copies memory and device state of a paused VM, which stays as it is: copy its disk before it
  // resumes or ends. kFailedPrecondition where it isn't paused or was started without
  // spec.snapshots. `basis` is SnapshotBasis() of its spec. Blocks for about 1 ms a MiB of memory
  // in use; bound: 60 s.
  virtual absl::StatusOr<VmSnapshot> Snapshot(const RunningVm& record, std::string basis) = 0;

  // The same into files of the caller's; the one for the devices must be an empty memory file, the
  // one for the memory may hold what SaveAhead put there.
  virtual absl::Status Save(const RunningVm& record, int memory_fd, int devices_fd) = 0;

  // Copies the memory of a VM that may be running, torn as it is, into an empty file, so that Save,
  // once it is paused, has only to look for what changed. Blocks for about 1 ms a MiB in use.
  virtual absl::Status SaveAhead(const RunningVm& record, int memory_fd) = 0;

  // As Start, but the guest goes on where the snapshot was taken, with a private copy of its
  // memory. spec.rw_disk is a copy of that moment's disk, or a longer one (see GrowDisk). Returns
  // once the guest runs. Its clock, names and randomness are the snapshot's: before any of the
  // tenant's code, set them over the channel. kFailedPrecondition where the basis differs.
  virtual absl::StatusOr<VmHandle> Restore(const VmSpec& spec, const VmSnapshot& snapshot,
                                           const Spawned& spawned, CancelToken& cancel) = 0;

  // Tells the guest that its private disk now has `bytes`: more than it knew, and no more than the
  // file has. The guest's file system doesn't grow by itself. Bound: 2 s.
  virtual absl::Status GrowDisk(const RunningVm& record, uint64_t bytes) = 0;

  // After exit_fd() became readable.
  virtual absl::StatusOr<VmExit> Reap(VmHandle& vm) = 0;

  // What the guest wrote to its console since the last call, at most console_kib KiB (older bytes
  // are dropped). A guest's bytes: escape before showing.
  virtual absl::StatusOr<std::string> ReadConsole(const RunningVm& record) = 0;

  // Removes what Start put into the folder. Only for a VM that has ended.
  virtual absl::Status Clean(const std::string& folder) = 0;
};

}  // namespace bunker::agent
