// Availability groups: which images belong on which workers.
#include <string>
#include <utility>

#include "common/base/id.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

absl::Status MayChangeGroup(const Caller& caller, const Group& group) {
  if (MayChange(caller, group.ownership)) return absl::OkStatus();
  return Denied("the group belongs to scope " + std::string(NameOf(group.ownership.scope)),
                "only its owners may change it: make a group of your own");
}

}  // namespace

absl::StatusOr<RowPtr<Group>> Engine::CreateGroup(Turn& turn, const Caller& caller,
                                                  const CreateGroupSpec& spec) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const Ownership ownership, OwnershipFor(caller, spec.scope));
  if (spec.name.empty()) return Invalid("name: required");
  const std::string owner = OwnerKey(ownership);
  if (s.group_by_name.count(owner + "/" + spec.name) > 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                       "an availability group named " + spec.name + " exists at scope " +
                           std::string(NameOf(spec.scope)) + ": use it, or choose another name");
  }
  if (s.groups_of_owner.Of(owner).size() >= s.options.max_groups_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RESOURCE_IN_USE",
                       "there are " + std::to_string(s.options.max_groups_per_tenant) +
                           " groups at this scope, the most allowed: delete some");
  }
  Group group;
  group.id = s.MakeId("ag_", turn.now());
  group.name = spec.name;
  group.description = spec.description;
  group.ownership = ownership;
  group.auto_images = spec.auto_images;
  group.created_at = group.updated_at = turn.now();
  return s.groups.Put(turn, std::move(group));
}

absl::StatusOr<RowPtr<Group>> Engine::FindGroup(const Caller& caller,
                                                const std::string& ref) const {
  const State& s = *state_;
  const auto visible = [&](const std::string& id) -> RowPtr<Group> {
    RowPtr<Group> group = s.groups.Find(id);
    return group != nullptr && MaySee(caller, group->ownership) ? group : nullptr;
  };
  if (RowPtr<Group> group = visible(ref); group != nullptr) return group;
  for (const std::string& owner :
       {"tenant:" + caller.tenant_id, "partner:" + caller.partner_id, std::string("platform")}) {
    const auto it = s.group_by_name.find(owner + "/" + ref);
    if (it == s.group_by_name.end()) continue;
    if (RowPtr<Group> group = visible(it->second); group != nullptr) return group;
  }
  return NotFound("availability group", ref);
}

Page<Group> Engine::ListGroups(const Caller& caller, const PageSpec& page) const {
  const auto& rows = state_->groups.rows();
  Page<Group> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!MaySee(caller, it->second->ownership)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

absl::Status Engine::DeleteGroup(Turn& turn, const Caller& caller, const std::string& ref) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindGroup(caller, ref));
  RETURN_IF_ERROR(MayChangeGroup(caller, *group));
  state_->groups.Erase(turn, group->id);
  ReconcileGroup(turn, *group);
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<Group>> Engine::AttachImage(Turn& turn, const Caller& caller,
                                                  const std::string& group_ref,
                                                  const std::string& image_ref) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Group> found, FindGroup(caller, group_ref));
  RETURN_IF_ERROR(MayChangeGroup(caller, *found));
  ASSIGN_OR_RETURN(const RowPtr<Image> image, FindImage(caller, image_ref));
  if (!GroupMayHold(*found, *image)) {
    return Invalid("ref: an availability group of scope " +
                   std::string(NameOf(found->ownership.scope)) +
                   " cannot hold an image of scope " +
                   std::string(NameOf(image->ownership.scope)) +
                   " of another owner: register the image at the group's scope");
  }
  if (!image->active) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "IMAGE_INACTIVE",
                       "the image " + image->name +
                           " is deactivated: register it again under a new name");
  }
  if (found->image_ids.count(image->id) > 0) return found;
  Group group = *found;
  group.image_ids.insert(image->id);
  group.updated_at = turn.now();
  RowPtr<Group> row = s.groups.Put(turn, std::move(group));
  ReconcileImage(turn, image->id);
  return row;
}

absl::StatusOr<RowPtr<Group>> Engine::DetachImage(Turn& turn, const Caller& caller,
                                                  const std::string& group_ref,
                                                  const std::string& image_ref) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Group> found, FindGroup(caller, group_ref));
  RETURN_IF_ERROR(MayChangeGroup(caller, *found));
  ASSIGN_OR_RETURN(const RowPtr<Image> image, FindImage(caller, image_ref));
  if (found->image_ids.count(image->id) == 0) return found;
  Group group = *found;
  group.image_ids.erase(image->id);
  group.updated_at = turn.now();
  RowPtr<Group> row = s.groups.Put(turn, std::move(group));
  ReconcileImage(turn, image->id);
  return row;
}

absl::StatusOr<RowPtr<Group>> Engine::AttachWorker(Turn& turn, const Caller& caller,
                                                   const std::string& group_ref,
                                                   const std::string& worker_ref) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Group> found, FindGroup(caller, group_ref));
  RETURN_IF_ERROR(MayChangeGroup(caller, *found));
  ASSIGN_OR_RETURN(const WorkerView view, FindWorker(caller, worker_ref));
  if (!MayUseWorker(found->ownership, *view.worker)) {
    return Invalid("ref: the worker " + view.worker->name + " is not open to scope " +
                   std::string(NameOf(found->ownership.scope)) +
                   ": attach a worker of that scope or a shared one");
  }
  if (found->worker_ids.count(view.worker->id) > 0) return found;
  Group group = *found;
  group.worker_ids.insert(view.worker->id);
  group.updated_at = turn.now();
  RowPtr<Group> row = s.groups.Put(turn, std::move(group));
  ReconcileGroup(turn, *row);
  return row;
}

absl::StatusOr<RowPtr<Group>> Engine::DetachWorker(Turn& turn, const Caller& caller,
                                                   const std::string& group_ref,
                                                   const std::string& worker_ref) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Group> found, FindGroup(caller, group_ref));
  RETURN_IF_ERROR(MayChangeGroup(caller, *found));
  ASSIGN_OR_RETURN(const WorkerView view, FindWorker(caller, worker_ref));
  if (found->worker_ids.count(view.worker->id) == 0) return found;
  Group group = *found;
  group.worker_ids.erase(view.worker->id);
  group.updated_at = turn.now();
  RowPtr<Group> row = s.groups.Put(turn, std::move(group));
  ReconcileGroup(turn, *row);
  return row;
}

}  // namespace bunker::controller
