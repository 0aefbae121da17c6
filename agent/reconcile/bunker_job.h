// The steps that make one bunker run and the steps that undo them. Blocking; on pool threads.
// Thread-safe: free functions over thread-safe parts.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/cache/image_store.h"
#include "agent/exec/guest_channel.h"
#include "agent/journal/journal.h"
#include "agent/reconcile/clone_pool.h"
#include "agent/reconcile/network_request.h"
#include "agent/reconcile/template_keeper.h"
#include "agent/reconcile/uid_pool.h"
#include "agent/vm/vmm.h"
#include "bunker/agent/v1/journal.pb.h"
#include "common/base/cancel.h"
#include "common/proc/cgroup.h"

namespace bunker::agent {

// What a job works with. All must outlive it.
struct BunkerJobParts {
  Vmm& vmm;
  ImageStore& images;
  Journal& journal;
  UidPool& uids;
  TemplateKeeper& templates;
  ClonePool& clones;
  BunkerNetworks* networks = nullptr;  // null: bunkers without a network card alone
  const CgroupRoot* cgroups = nullptr;  // null: the VMs are in the agent's own
};

struct BunkerJobOptions {
  std::string vm_dir;    // holds one folder per VM
  std::string disk_dir;  // holds the disks that outlive their VMs, <bunker>.ext4
  std::string snapshot_dir;  // holds copies of disks, <snapshot>.ext4
  std::string kernel;
  std::string initrd;
  std::string kernel_digest;  // sha256, journalled with each VM
  std::string initrd_digest;
  Accelerator accelerator = Accelerator::kSoftware;
  absl::Duration boot_deadline = absl::Seconds(60);
};

// A VM that runs, with the way to its guest. Its image is pinned while this is on the host.
struct RunningBunker {
  v1::VmRow row;  // as journalled
  VmHandle vm;
  std::shared_ptr<GuestChannel> channel;  // connects again by itself
};

struct VmShape {
  uint32_t cpu_millicores = 0;
  uint32_t memory_mb = 0;
  bool network_card = false;
};

// The VM that a bunker of such a shape gets, without folder, private disk, uid and tap.
VmSpec FormOf(const BunkerJobOptions& options, const ImageStore& images,
              const std::string& recipe_digest, const VmShape& shape);

struct StartOutcome {
  absl::StatusOr<std::shared_ptr<RunningBunker>> running;
  // The start failed, and its VM could not be ended either: row, folder, pin and uid stay taken,
  // and the agent's next start ends it.
  bool left_behind = false;
  uid_t uid = 0;  // its VM's, which need not be the one that was given: that is back then
};

// disk → VM → guest ready → configured. The VM is one that waits in the pool, or restored from a
// template, and boots where neither is there or works. Pins the image first. On an error everything
// is undone, the pin too, and nothing is left on the host or in the journal (but see left_behind).
StartOutcome StartBunker(const BunkerJobParts& parts, const BunkerJobOptions& options,
                         const link::v1::BunkerAssignment& wanted, const std::string& recipe_digest,
                         uid_t uid, CancelToken& cancel);

// What becomes of the journal row of a VM that has ended.
enum class RowAfter {
  kFinal,    // stays, with its final state, until the controller has dropped the bunker
  kRemoved,  // goes: the bunker never ran
};

// Asks the guest, then the VMM, then kills; removes disk and folder; unpins. An error says that the
// VM still lives, and nothing was taken from it: call again. Other errors are logged: what they
// leave is swept at the next start.
absl::Status StopBunker(const BunkerJobParts& parts, RunningBunker& bunker, absl::Duration grace,
                        RowAfter row_after);

// Removes the folder of a VM that does not run, its control group, and the network named after it.
absl::Status RemoveVmFolder(const BunkerJobParts& parts, const std::string& folder);

}  // namespace bunker::agent
