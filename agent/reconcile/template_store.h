// What bunkers are restored from: of each form that is wanted, a guest that has booted and run a
// shell once, and nothing of any tenant.
//
// Thread-safe. Kept in memory and by this process alone: a new agent makes them again, so that none
// can be older than the host's boot, the VMM or the image that it was made with.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "agent/vm/vmm.h"
#include "common/base/mutex.h"

namespace bunker::agent {

// Immutable, but for its end: the last holder's letting go removes its folder.
struct Template {
  Template() = default;
  ~Template();
  Template(const Template&) = delete;
  Template& operator=(const Template&) = delete;

  std::string key;            // all that it depends on; see TemplateKeeper
  std::string recipe_digest;  // of its image
  VmSnapshot snapshot;
  std::string folder;         // its own
  std::string disk;           // in it: the private disk at the moment of the snapshot
  uint64_t disk_mb = 0;       // a bunker's disk may be larger, not smaller
  uint64_t bytes = 0;         // of memory that it took when it was made

  // Of memory that it takes now: a page that its guest never touched is made in it when the first
  // clone touches it.
  uint64_t BytesNow() const;
};

class TemplateStore {
 public:
  TemplateStore(size_t max_count, uint64_t max_bytes)
      : max_count_(max_count), max_bytes_(max_bytes) {}

  // Of that key the one with the largest disk up to `disk_mb`; null where there is none. Counts as
  // a use. Others go where all of them have grown too large together.
  std::shared_ptr<const Template> Find(const std::string& key, uint64_t disk_mb);

  // Takes it in, and the least recently used out until count and bytes fit. kResourceExhausted
  // where it is too large by itself.
  absl::Status Put(std::shared_ptr<const Template> made);

  // Takes out this one, which failed somebody, or all of an image.
  void Drop(const std::shared_ptr<const Template>& bad);
  void DropImage(const std::string& recipe_digest);

  size_t count() const;
  uint64_t bytes() const;

 private:
  using List = std::list<std::shared_ptr<const Template>>;

  uint64_t BytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the least recently used out until count and bytes fit, or one is left.
  void TrimLocked(List* dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_count_;
  const uint64_t max_bytes_;
  mutable Mutex mutex_;
  List kept_ ABSL_GUARDED_BY(mutex_);  // newest use first
};

}  // namespace bunker::agent
