#include "agent/reconcile/template_keeper.h"

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/net/bunker_network.h"
#include "agent/reconcile/template_job.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxFailures = 256;
// Beside the guest's memory: the VMM and the copy that is kept.
constexpr uint64_t kSpareMb = 256;

// 0 where the kernel does not say.
uint64_t AvailableMb() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string name; meminfo >> name;) {
    uint64_t kib = 0;
    if (name == "MemAvailable:" && meminfo >> kib) return kib >> 10;
    meminfo.ignore(256, '\n');
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::string> TemplateKeeper::KeyOf(const VmSpec& form,
                                                  const std::string& recipe_digest) const {
  const std::optional<BakedImage> image = images_.Find(recipe_digest);
  if (!image) return absl::NotFoundError("the image is not on this worker any more");
  ASSIGN_OR_RETURN(const std::string basis, vmm_.SnapshotBasis(form));
  return absl::StrCat(recipe_digest, " ", image->rootfs_digest, " ", options_.kernel_digest, " ",
                      options_.initrd_digest, " ", basis);
}

TemplateKeeper::Answer TemplateKeeper::Find(const VmSpec& form, const std::string& recipe_digest,
                                            uint64_t disk_mb) {
  if (!enabled()) return {};
  const absl::StatusOr<std::string> key = KeyOf(form, recipe_digest);
  if (!key.ok()) {
    return {nullptr, absl::StrCat("TEMPLATE_FAILED: ", key.status().message())};
  }
  if (std::shared_ptr<const Template> found = store_.Find(*key, disk_mb)) return {found, ""};
  MutexLock lock(mutex_);
  if (under_way_.count(*key) != 0) {
    return {nullptr, "TEMPLATE_MISSING: the template of this form is being made"};
  }
  if (const auto failed = failures_.find(*key); failed != failures_.end()) {
    if (MonotonicTime() < failed->second.until) {
      return {nullptr, absl::StrCat("TEMPLATE_FAILED: ", failed->second.why)};
    }
    failures_.erase(failed);
  }
  VmSpec spec = form;
  spec.folder = absl::StrCat(options_.vm_dir, "/template.", ++next_name_);
  under_way_.insert(*key);
  auto job = [this, key = *key, spec, recipe_digest, disk_mb](CancelToken& cancel) {
    const absl::Status made = Make(key, spec, recipe_digest, disk_mb, cancel);
    if (!made.ok()) NoteFailure(key, made);
    MutexLock done(mutex_);
    under_way_.erase(key);
  };
  if (!pool_.Submit(std::move(job)).ok()) under_way_.erase(*key);
  return {nullptr, "TEMPLATE_MISSING: the first of its form on this worker since its agent began"};
}

void TemplateKeeper::PrepareAhead(const VmSpec& form, const std::string& recipe_digest,
                                  uint64_t disk_mb) {
  {
    MutexLock lock(mutex_);
    const size_t expected = under_way_.size() + 1;
    // A template takes what its guest has touched, which is less than the guest's memory.
    const uint64_t bytes = store_.bytes() + expected * (uint64_t{form.memory_mb} << 20);
    if (store_.count() + expected > options_.max_count || bytes > options_.max_bytes) return;
  }
  Prepare(form, recipe_digest, disk_mb);
}

absl::Status TemplateKeeper::Make(const std::string& key, VmSpec spec,
                                  const std::string& recipe_digest, uint64_t disk_mb,
                                  CancelToken& cancel) {
  RETURN_IF_ERROR(cancel.Check());
  if (const uint64_t available = AvailableMb();
      available != 0 && available < 2 * spec.memory_mb + kSpareMb) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the worker has ", available, " MiB of memory left, too few to make one"));
  }
  const absl::Duration begin = MonotonicTime();
  UniqueFd tap;
  if (!spec.nic_mac.empty()) {
    ASSIGN_OR_RETURN(tap, MakeIdleTap());
    spec.tap_fd = tap.get();
  }
  ASSIGN_OR_RETURN(spec.uid, uids_.Take());
  TemplateOrder order;
  order.name = spec.folder.substr(options_.vm_dir.size() + 1);
  order.key = key;
  order.recipe_digest = recipe_digest;
  order.disk_mb = disk_mb;
  order.spec = spec;
  auto made = MakeTemplate(vmm_, journal_, order, cancel);
  const auto left = FindProcessesByUid(spec.uid, spec.uid);
  if (left.ok() && left->empty()) uids_.GiveBack(spec.uid);
  RETURN_IF_ERROR(made.status());
  if (!images_.Find(recipe_digest)) return absl::NotFoundError("its image was evicted meanwhile");
  const uint64_t bytes = (*made)->bytes;
  RETURN_IF_ERROR(store_.Put(*std::move(made)));
  Log(Severity::kInfo, "template.made",
      {{"name", order.name},
       {"recipe", recipe_digest},
       {"vcpus", spec.vcpus},
       {"memory_mb", spec.memory_mb},
       {"disk_mb", disk_mb},
       {"bytes", bytes},
       {"took_ms", absl::ToInt64Milliseconds(MonotonicTime() - begin)},
       {"kept", store_.count()}});
  return absl::OkStatus();
}

void TemplateKeeper::Reject(const std::shared_ptr<const Template>& bad, const absl::Status& why) {
  store_.Drop(bad);
  NoteFailure(bad->key, why);
}

void TemplateKeeper::NoteFailure(const std::string& key, const absl::Status& why) {
  Log(Severity::kWarning, "template.failed", {{"key", key}, {"why", std::string(why.message())}});
  MutexLock lock(mutex_);
  if (failures_.size() >= kMaxFailures) failures_.erase(failures_.begin());
  failures_[key] = {std::string(why.message()), MonotonicTime() + options_.retry_pause};
}

}  // namespace bunker::agent
