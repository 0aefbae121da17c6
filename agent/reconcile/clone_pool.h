// Clones of templates that nobody has asked for yet: restored, warmed up by a first shell, and
// paused. One of them becomes a bunker in some tens of milliseconds.
//
// As many of each template as were asked for in the last minute, within the bounds. They hold
// nothing of any tenant; their names, randomness and time are given when they are taken.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/exec/guest_channel.h"
#include "agent/journal/journal.h"
#include "agent/reconcile/template_store.h"
#include "agent/reconcile/uid_pool.h"
#include "agent/vm/vmm.h"
#include "bunker/agent/v1/journal.pb.h"
#include "common/base/cancel.h"
#include "common/base/mutex.h"
#include "common/proc/cgroup.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

// Paused. Its journal row, of incarnation 1, says that it never ran: an agent that starts ends it.
struct PooledClone {
  v1::VmRow row;
  VmHandle vm;
  std::shared_ptr<GuestChannel> channel;
  std::shared_ptr<const Template> made_from;
};

class ClonePool {
 public:
  struct Options {
    size_t max_count = 0;  // 0: none
    uint64_t memory_mb = 512;
    std::string vm_dir;
    absl::Duration idle_after = absl::Minutes(5);  // a form that nobody asked for goes
  };

  // All must outlive the pool. `cgroups` null: the VMs are in the agent's own.
  ClonePool(Vmm& vmm, Journal& journal, UidPool& uids, const CgroupRoot* cgroups, Options options)
      : vmm_(vmm),
        journal_(journal),
        uids_(uids),
        cgroups_(cgroups),
        options_(std::move(options)) {}
  ~ClonePool();

  // One of that template, or null; counts as demand. It is the caller's to end, its uid to give
  // back, its row in the journal to replace. `form` as for TemplateKeeper::Find. Has the next one
  // made in the background.
  std::unique_ptr<PooledClone> Take(const std::shared_ptr<const Template>& of, const VmSpec& form);

  // Has those ended that are of no use any more. Now and then.
  void Tend();
  // Has those of an image ended whose file is going.
  void DropImage(const std::string& recipe_digest);

  // Makes no more and ends all. Before journal and VMM go.
  void Shutdown();

 private:
  struct Demand {
    std::deque<absl::Duration> asked;  // monotonic, of the last minute; at most max_count
    absl::Duration last;
    VmSpec form;
    std::weak_ptr<const Template> of;
  };

  size_t Room() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FillLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubmitLocked(std::shared_ptr<const Template> of, VmSpec spec)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Make(std::shared_ptr<const Template> of, VmSpec spec, CancelToken& cancel);
  absl::Status Raise(PooledClone& clone, const VmSpec& spec, CancelToken& cancel);
  absl::Status WarmUp(PooledClone& clone, CancelToken& cancel);
  // Blocking.
  void End(std::unique_ptr<PooledClone> clone);

  Vmm& vmm_;
  Journal& journal_;
  UidPool& uids_;
  const CgroupRoot* const cgroups_;
  const Options options_;

  Mutex mutex_;
  std::list<std::unique_ptr<PooledClone>> ready_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Demand> demand_ ABSL_GUARDED_BY(mutex_);  // by the template's key
  size_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_name_ ABSL_GUARDED_BY(mutex_) = 0;
  static constexpr size_t kMaxQueued = 256;
  WorkerPool pool_{"clones", 1, kMaxQueued};  // last: its thread uses all of the above
};

}  // namespace bunker::agent
