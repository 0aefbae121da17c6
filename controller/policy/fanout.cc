#include "controller/policy/fanout.h"

namespace bunker::controller {

bool GroupMayHold(const Group& group, const Image& image) {
  return Reaches(group.ownership, image.ownership);
}

bool MayUseWorker(const Ownership& viewer, const Worker& worker) {
  if (worker.ownership.scope == Scope::kPlatform) {
    return worker.shared || viewer.scope == Scope::kPlatform;
  }
  return Reaches(viewer, worker.ownership);
}

bool GroupHolds(const Group& group, const Image& image) {
  if (!GroupMayHold(group, image)) return false;
  if (group.image_ids.count(image.id) > 0) return true;
  return group.auto_images && group.ownership == image.ownership;
}

WantReason Suits(const Image& image, const Worker& worker) {
  if (image.arch != Arch::kUnspecified && worker.facts.arch != Arch::kUnspecified &&
      image.arch != worker.facts.arch) {
    return WantReason::kWrongArch;
  }
  constexpr uint64_t kMib = uint64_t{1} << 20;
  // Only what the baked file really takes: the cap, size_mib, is usually far larger.
  if (worker.facts.capacity.disk_mb > 0 &&
      image.allocated_bytes / kMib > worker.facts.capacity.disk_mb) {
    return WantReason::kTooLarge;
  }
  return WantReason::kWanted;
}

std::map<std::string, WantReason> FanOut(const Image& image,
                                         const std::vector<const Group*>& groups,
                                         const std::map<std::string, const Worker*>& workers) {
  std::map<std::string, WantReason> wanted;
  if (!image.active) return wanted;
  for (const Group* group : groups) {
    if (!GroupHolds(*group, image)) continue;
    for (const std::string& worker_id : group->worker_ids) {
      const auto it = workers.find(worker_id);
      if (it == workers.end() || wanted.count(worker_id) > 0) continue;
      if (MayUseWorker(group->ownership, *it->second))
        wanted[worker_id] = Suits(image, *it->second);
    }
  }
  return wanted;
}

}  // namespace bunker::controller
