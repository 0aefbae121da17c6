#include "controller/engine/account_index.h"

namespace bunker::controller {
namespace {

void RemoveKey(std::map<std::string, std::string>& index, const std::string& key,
               const std::string& id) {
  const auto it = index.find(key);
  if (it != index.end() && it->second == id) index.erase(it);
}

}  // namespace

void AccountIndex::Index(const Partner* before, const Partner* after) {
  if (before != nullptr) RemoveKey(partner_by_name, before->name, before->id);
  if (after != nullptr) partner_by_name[after->name] = after->id;
}

void AccountIndex::Index(const Tenant* before, const Tenant* after) {
  if (before != nullptr) {
    RemoveKey(tenant_by_name, before->partner_id + "/" + before->name, before->id);
    tenants_of_partner.Remove(before->partner_id, before->id);
  }
  if (after != nullptr) {
    tenant_by_name[after->partner_id + "/" + after->name] = after->id;
    tenants_of_partner.Add(after->partner_id, after->id);
  }
}

void AccountIndex::Index(const User* before, const User* after) {
  if (before != nullptr) {
    RemoveKey(user_by_name, before->tenant_id + "/" + before->name, before->id);
    users_of_tenant.Remove(before->tenant_id, before->id);
    for (const std::string& group : before->group_ids) members_of_group.Remove(group, before->id);
  }
  if (after != nullptr) {
    user_by_name[after->tenant_id + "/" + after->name] = after->id;
    users_of_tenant.Add(after->tenant_id, after->id);
    for (const std::string& group : after->group_ids) members_of_group.Add(group, after->id);
  }
}

void AccountIndex::Index(const UserGroup* before, const UserGroup* after) {
  if (before != nullptr) {
    RemoveKey(user_group_by_name, before->tenant_id + "/" + before->name, before->id);
    user_groups_of_tenant.Remove(before->tenant_id, before->id);
    if (!before->parent_id.empty()) groups_of_parent.Remove(before->parent_id, before->id);
  }
  if (after != nullptr) {
    user_group_by_name[after->tenant_id + "/" + after->name] = after->id;
    user_groups_of_tenant.Add(after->tenant_id, after->id);
    if (!after->parent_id.empty()) groups_of_parent.Add(after->parent_id, after->id);
  }
}

void AccountIndex::Index(const ApiKey* before, const ApiKey* after) {
  if (before != nullptr) {
    RemoveKey(key_by_sha256, before->sha256, before->id);
    keys_of_user.Remove(before->user_id, before->id);
    keys_of_tenant.Remove(before->tenant_id, before->id);
  }
  if (after != nullptr) {
    key_by_sha256[after->sha256] = after->id;
    keys_of_user.Add(after->user_id, after->id);
    keys_of_tenant.Add(after->tenant_id, after->id);
  }
}

}  // namespace bunker::controller
