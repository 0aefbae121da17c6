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

absl::Status NameTaken(const std::string& name, Scope scope) {
  return ReasonError(absl::StatusCode::kAlreadyExists, "SLUG_CONFLICT",
                     "an availability group named " + name + " exists at scope " +
                         std::string(NameOf(scope)) + ": use it, or choose another name");
}

}  // namespace

absl::StatusOr<RowPtr<Group>> Engine::CreateGroup(Turn& turn, const Caller& caller,
                                                  const CreateGroupSpec& spec) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const Ownership ownership, OwnershipFor(caller, spec.scope));
  if (spec.name.empty()) return Invalid("name: required");
  const std::string owner = OwnerKey(ownership);
  if (s.group_by_name.count(owner + "/" + spec.name) > 0) return NameTaken(spec.name, spec.scope);
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

// The group, where the caller may change it.
absl::StatusOr<RowPtr<Group>> Engine::FindGroupToChange(const Caller& caller,
                                                        const std::string& ref) const {
  ASSIGN_OR_RETURN(RowPtr<Group> group, FindGroup(caller, ref));
  if (MayChange(caller, group->ownership)) return group;
  return Denied("the group belongs to scope " + std::string(NameOf(group->ownership.scope)),
                "only its owners may change it: make a group of your own");
}

absl::StatusOr<RowPtr<Group>> Engine::PatchGroup(Turn& turn, const Caller& caller,
                                                 const std::string& ref,
                                                 const PatchGroupSpec& spec) {
  State& s = *state_;
  ASSIGN_OR_RETURN(const RowPtr<Group> found, FindGroupToChange(caller, ref));
  Group group = *found;
  group.name = spec.name.value_or(group.name);
  group.description = spec.description.value_or(group.description);
  group.auto_images = spec.auto_images.value_or(group.auto_images);
  if (group.name.empty()) return Invalid("name: must not be empty");
  const auto named = s.group_by_name.find(OwnerKey(group.ownership) + "/" + group.name);
  if (named != s.group_by_name.end() && named->second != group.id) {
    return NameTaken(group.name, group.ownership.scope);
  }
  if (group.name == found->name && group.description == found->description &&
      group.auto_images == found->auto_images) {
    return found;
  }
  group.updated_at = turn.now();
  return s.groups.Put(turn, std::move(group));
}

absl::Status Engine::DeleteGroup(Turn& turn, const Caller& caller, const std::string& ref) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindGroupToChange(caller, ref));
  state_->groups.Erase(turn, group->id);
  return absl::OkStatus();
}

absl::StatusOr<RowPtr<Image>> Engine::FindImageFor(const Caller& caller, const Group& group,
                                                   const std::string& ref) const {
  ASSIGN_OR_RETURN(RowPtr<Image> image, FindImage(caller, ref));
  if (!GroupMayHold(group, *image)) {
    return Invalid("ref: an availability group of scope " +
                   std::string(NameOf(group.ownership.scope)) + " cannot hold an image of scope " +
                   std::string(NameOf(image->ownership.scope)) +
                   " of another owner: register the image at the group's scope");
  }
  if (image->active) return image;
  return ReasonError(
      absl::StatusCode::kFailedPrecondition, "IMAGE_INACTIVE",
      "the image " + image->name + " is deactivated: register it again under a new name");
}

absl::StatusOr<RowPtr<Worker>> Engine::FindWorkerFor(const Caller& caller, const Group& group,
                                                     const std::string& ref) const {
  ASSIGN_OR_RETURN(WorkerView view, FindWorker(caller, ref));
  if (MayUseWorker(group.ownership, *view.worker)) return std::move(view.worker);
  return Invalid("ref: the worker " + view.worker->name + " is not open to scope " +
                 std::string(NameOf(group.ownership.scope)) +
                 ": attach a worker of that scope or a shared one");
}

// Puts the member in, or takes it out; what that means for the cache is Settle()'s.
RowPtr<Group> Engine::ChangeMember(Turn& turn, const RowPtr<Group>& found,
                                   std::set<std::string> Group::*members, const std::string& id,
                                   bool in) {
  if (((*found).*members).count(id) == (in ? 1u : 0u)) return found;
  Group group = *found;
  if (in) {
    (group.*members).insert(id);
  } else {
    (group.*members).erase(id);
  }
  group.updated_at = turn.now();
  return state_->groups.Put(turn, std::move(group));
}

absl::StatusOr<RowPtr<Group>> Engine::AttachImage(Turn& turn, const Caller& caller,
                                                  const std::string& group_ref,
                                                  const std::string& image_ref) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindGroupToChange(caller, group_ref));
  ASSIGN_OR_RETURN(const RowPtr<Image> image, FindImageFor(caller, *group, image_ref));
  return ChangeMember(turn, group, &Group::image_ids, image->id, /*in=*/true);
}

absl::StatusOr<RowPtr<Group>> Engine::DetachImage(Turn& turn, const Caller& caller,
                                                  const std::string& group_ref,
                                                  const std::string& image_ref) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindGroupToChange(caller, group_ref));
  ASSIGN_OR_RETURN(const RowPtr<Image> image, FindImage(caller, image_ref));
  return ChangeMember(turn, group, &Group::image_ids, image->id, /*in=*/false);
}

absl::StatusOr<RowPtr<Group>> Engine::AttachWorker(Turn& turn, const Caller& caller,
                                                   const std::string& group_ref,
                                                   const std::string& worker_ref) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindGroupToChange(caller, group_ref));
  ASSIGN_OR_RETURN(const RowPtr<Worker> worker, FindWorkerFor(caller, *group, worker_ref));
  return ChangeMember(turn, group, &Group::worker_ids, worker->id, /*in=*/true);
}

absl::StatusOr<RowPtr<Group>> Engine::DetachWorker(Turn& turn, const Caller& caller,
                                                   const std::string& group_ref,
                                                   const std::string& worker_ref) {
  ASSIGN_OR_RETURN(const RowPtr<Group> group, FindGroupToChange(caller, group_ref));
  ASSIGN_OR_RETURN(const WorkerView view, FindWorker(caller, worker_ref));
  return ChangeMember(turn, group, &Group::worker_ids, view.worker->id, /*in=*/false);
}

}  // namespace bunker::controller
