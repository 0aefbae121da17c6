// Sees to it that what bunkers start from is there: makes templates one after the other, in
// the background, and answers which one a start may use.
//
// A template belongs to the image's file, the guest's kernel and initrd, and the driver's basis
// (VMM build and devices, CPUs, memory, the clock's rate): where any of them differs, it is
// another key.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/cache/image_store.h"
#include "agent/journal/journal.h"
#include "agent/reconcile/template_store.h"
#include "agent/reconcile/uid_pool.h"
#include "agent/vm/vmm.h"
#include "common/base/mutex.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {

class TemplateKeeper {
 public:
  struct Options {
    bool enabled = true;
    size_t max_count = 16;
    uint64_t max_bytes = uint64_t{2} << 30;
    std::string vm_dir;
    std::string kernel_digest;
    std::string initrd_digest;
    absl::Duration retry_pause = absl::Minutes(1);  // after one that could not be made
  };

  // All must outlive the keeper.
  TemplateKeeper(Vmm& vmm, ImageStore& images, Journal& journal, UidPool& uids, Options options)
      : vmm_(vmm),
        images_(images),
        journal_(journal),
        uids_(uids),
        options_(std::move(options)),
        store_(options_.max_count, options_.max_bytes) {}

  bool enabled() const { return options_.enabled && options_.max_count > 0; }

  struct Answer {
    std::shared_ptr<const Template> found;
    std::string why_not;  // "CODE: words" where none was found; "" where templates are off
  };

  // What a VM of that form may be restored from. Where there is nothing yet, has it made and does
  // not wait. Of `form`, folder, private disk and uid don't matter. Looks at files; about 1 ms.
  Answer Find(const VmSpec& form, const std::string& recipe_digest, uint64_t disk_mb);

  // Has it made unless it is there or has failed of late.
  void Prepare(const VmSpec& form, const std::string& recipe_digest, uint64_t disk_mb) {
    [[maybe_unused]] const Answer ignored = Find(form, recipe_digest, disk_mb);
  }

  // The same for a form that nobody has asked for yet: only where it pushes nothing out.
  void PrepareAhead(const VmSpec& form, const std::string& recipe_digest, uint64_t disk_mb);

  // A restore from it failed: it is not used again, and the next one is made after a pause.
  void Reject(const std::shared_ptr<const Template>& bad, const absl::Status& why);

  // The image's file is going.
  void DropImage(const std::string& recipe_digest) { store_.DropImage(recipe_digest); }

  // Ends what is under way and makes no more. Before journal and images go.
  void Shutdown() { pool_.Shutdown(); }

 private:
  struct Failure {
    std::string why;
    absl::Duration until;  // monotonic
  };

  absl::StatusOr<std::string> KeyOf(const VmSpec& form, const std::string& recipe_digest) const;
  absl::Status Make(const std::string& key, VmSpec spec, const std::string& recipe_digest,
                    uint64_t disk_mb, CancelToken& cancel);
  void NoteFailure(const std::string& key, const absl::Status& why);

  Vmm& vmm_;
  ImageStore& images_;
  Journal& journal_;
  UidPool& uids_;
  const Options options_;
  TemplateStore store_;

  Mutex mutex_;
  std::set<std::string> under_way_ ABSL_GUARDED_BY(mutex_);  // keys
  std::map<std::string, Failure> failures_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_name_ ABSL_GUARDED_BY(mutex_) = 0;
  static constexpr size_t kMaxQueued = 64;
  WorkerPool pool_{"template", 1, kMaxQueued};  // last: its thread uses all of the above
};

}  // namespace bunker::agent
