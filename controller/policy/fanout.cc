#include "controller/policy/fanout.h"

#include "controller/policy/cache_room.h"

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

bool Pairs(const Group& group, const Image& image, const Worker& worker) {
  return image.active && group.worker_ids.count(worker.id) > 0 && GroupHolds(group, image) &&
         MayUseWorker(group.ownership, worker);
}

SkipReason Suits(const Image& image, const Worker& worker) {
  if (image.arch != Arch::kUnspecified && worker.facts.arch != Arch::kUnspecified &&
      image.arch != worker.facts.arch) {
    return SkipReason::kWrongArch;
  }
  const uint64_t limit = CacheLimitBytes(worker);
  return limit > 0 && NeededBytes(image) > limit ? SkipReason::kTooLarge : SkipReason::kNone;
}

std::optional<SkipReason> Want(const Image& image, const std::vector<const Group*>& groups,
                               const Worker& worker) {
  for (const Group* group : groups) {
    if (Pairs(*group, image, worker)) return Suits(image, worker);
  }
  return std::nullopt;
}

std::map<std::string, SkipReason> FanOut(const Image& image,
                                         const std::vector<const Group*>& groups,
                                         const std::map<std::string, const Worker*>& workers) {
  std::map<std::string, SkipReason> wanted;
  for (const auto& [worker_id, worker] : workers) {
    if (const auto reason = Want(image, groups, *worker)) wanted[worker_id] = *reason;
  }
  return wanted;
}

}  // namespace bunker::controller
