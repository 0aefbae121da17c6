// The users that VMs run as: one each, out of a range that nothing else on the host has.
// Thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"

namespace bunker::agent {

class UidPool {
 public:
  UidPool(uid_t base, uint32_t count) : base_(base), count_(count) {}

  // kResourceExhausted, with the remedy, where all are taken.
  absl::StatusOr<uid_t> Take() {
    MutexLock lock(mutex_);
    for (uint32_t i = 0; i < count_; ++i) {
      if (const uid_t uid = base_ + i; used_.insert(uid).second) return uid;
    }
    return absl::ResourceExhaustedError(
        "every uid of vm.uid_base and vm.uid_count is taken by a VM: raise vm.uid_count");
  }
  // One that an adopted VM has.
  void Mark(uid_t uid) {
    MutexLock lock(mutex_);
    used_.insert(uid);
  }
  void GiveBack(uid_t uid) {
    MutexLock lock(mutex_);
    used_.erase(uid);
  }
  uid_t first() const { return base_; }
  uid_t last() const { return base_ + count_ - 1; }

 private:
  const uid_t base_;
  const uint32_t count_;
  Mutex mutex_;
  std::set<uid_t> used_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bunker::agent
