#include "controller/policy/quota.h"

#include <utility>
#include <vector>

namespace bunker::controller {
namespace {

using Sums = std::unordered_map<std::string, QuotaUsage>;

QuotaUsage Sum(const Sums& sums, const std::string& key) {
  const auto it = sums.find(key);
  return it == sums.end() ? QuotaUsage{} : it->second;
}

// Sums of nothing are not kept.
void Change(Sums& sums, const std::string& key, const QuotaUsage& usage, bool in) {
  if (usage == QuotaUsage{}) return;
  QuotaUsage& sum = sums[key];
  if (in) {
    sum += usage;
  } else {
    sum -= usage;
  }
  if (sum == QuotaUsage{}) sums.erase(key);
}

void SetIn(std::unordered_map<std::string, std::set<std::string>>& sets, const std::string& key,
           const std::string& member, bool in) {
  if (in) {
    sets[key].insert(member);
    return;
  }
  const auto it = sets.find(key);
  if (it == sets.end()) return;
  it->second.erase(member);
  if (it->second.empty()) sets.erase(it);
}

}  // namespace

std::optional<QuotaBreach> BreachOf(const QuotaCaps& caps, const QuotaUsage& usage,
                                    const QuotaUsage& each, uint64_t count) {
  struct Row {
    std::string_view name;
    const std::optional<uint64_t>& cap;
    uint64_t usage;
    uint64_t asked;
  };
  const QuotaUsage all = each.Times(count);
  const Row rows[] = {
      {"per_bunker_max_cpu", caps.per_bunker_max_cpu, 0, each.cpu_millicores},
      {"per_bunker_max_memory", caps.per_bunker_max_memory, 0, each.memory_mb},
      {"per_bunker_max_disk", caps.per_bunker_max_disk, 0, each.disk_mb},
      {"per_bunker_max_gpu", caps.per_bunker_max_gpu, 0, each.gpus},
      {"max_concurrent_bunkers", caps.max_concurrent_bunkers, usage.bunkers, all.bunkers},
      {"max_persistent_bunkers", caps.max_persistent_bunkers, usage.persistent, all.persistent},
      {"max_cpu_millicores", caps.max_cpu_millicores, usage.cpu_millicores, all.cpu_millicores},
      {"max_memory_mb", caps.max_memory_mb, usage.memory_mb, all.memory_mb},
      {"max_disk_mb", caps.max_disk_mb, usage.disk_mb, all.disk_mb},
      {"max_gpu_count", caps.max_gpu_count, usage.gpus, all.gpus}};
  for (const Row& row : rows) {
    // What asks for nothing of a resource goes over no cap of it, however full.
    if (!row.cap || row.asked == 0 || row.usage + row.asked <= *row.cap) continue;
    return QuotaBreach{row.name, *row.cap, row.usage, row.asked};
  }
  return std::nullopt;
}

void QuotaIndex::Add(const std::string& user_id, const QuotaUsage& usage) {
  Change(of_user_, user_id, usage, true);
  for (const std::string& group : GroupsOf(user_id)) Change(of_group_, group, usage, true);
  for (const std::string& group : GroupsAround(user_id)) Change(of_tree_, group, usage, true);
}

void QuotaIndex::Subtract(const std::string& user_id, const QuotaUsage& usage) {
  Change(of_user_, user_id, usage, false);
  for (const std::string& group : GroupsOf(user_id)) Change(of_group_, group, usage, false);
  for (const std::string& group : GroupsAround(user_id)) Change(of_tree_, group, usage, false);
}

void QuotaIndex::MoveTrees(const std::set<std::string>& users, bool in) {
  for (const std::string& user : users) {
    const QuotaUsage usage = OfUser(user);
    for (const std::string& group : GroupsAround(user)) Change(of_tree_, group, usage, in);
  }
}

void QuotaIndex::SetMember(const std::string& group_id, const std::string& user_id,
                           bool is_member) {
  if ((GroupsOf(user_id).count(group_id) > 0) == is_member) return;
  MoveTrees({user_id}, false);
  Change(of_group_, group_id, OfUser(user_id), is_member);
  SetIn(groups_of_, user_id, group_id, is_member);
  SetIn(members_of_, group_id, user_id, is_member);
  MoveTrees({user_id}, true);
}

void QuotaIndex::SetParent(const std::string& group_id, const std::string& parent_id) {
  const auto it = parent_of_.find(group_id);
  const std::string before = it == parent_of_.end() ? "" : it->second;
  if (before == parent_id) return;
  std::set<std::string> users;
  std::set<std::string> seen;
  UsersBelow(group_id, users, seen);
  MoveTrees(users, false);
  if (!before.empty()) SetIn(children_of_, before, group_id, false);
  if (parent_id.empty()) {
    parent_of_.erase(group_id);
  } else {
    parent_of_[group_id] = parent_id;
    SetIn(children_of_, parent_id, group_id, true);
  }
  MoveTrees(users, true);
}

QuotaUsage QuotaIndex::OfUser(const std::string& user_id) const {
  return Sum(of_user_, user_id);
}

QuotaUsage QuotaIndex::OfGroup(const std::string& group_id) const {
  return Sum(of_group_, group_id);
}

QuotaUsage QuotaIndex::OfTree(const std::string& group_id) const {
  return Sum(of_tree_, group_id);
}

const std::set<std::string>& QuotaIndex::GroupsOf(const std::string& user_id) const {
  static const std::set<std::string>* const none = new std::set<std::string>();
  const auto it = groups_of_.find(user_id);
  return it == groups_of_.end() ? *none : it->second;
}

std::set<std::string> QuotaIndex::GroupsAround(const std::string& user_id) const {
  std::set<std::string> around;
  for (const std::string& group : GroupsOf(user_id)) {
    std::string id = group;
    // What was seen ends the walk, so that not even a cycle is walked for ever.
    while (!id.empty() && around.insert(id).second) {
      const auto it = parent_of_.find(id);
      id = it == parent_of_.end() ? "" : it->second;
    }
  }
  return around;
}

void QuotaIndex::UsersBelow(const std::string& group_id, std::set<std::string>& users,
                            std::set<std::string>& seen) const {
  std::vector<std::string> left = {group_id};
  while (!left.empty()) {
    const std::string id = std::move(left.back());
    left.pop_back();
    if (!seen.insert(id).second) continue;
    if (const auto it = members_of_.find(id); it != members_of_.end()) {
      users.insert(it->second.begin(), it->second.end());
    }
    if (const auto it = children_of_.find(id); it != children_of_.end()) {
      left.insert(left.end(), it->second.begin(), it->second.end());
    }
  }
}

std::string QuotaIndex::Difference(const QuotaIndex& other) const {
  if (of_user_ != other.of_user_) return "the sums of users";
  if (of_group_ != other.of_group_) return "the sums of groups";
  if (of_tree_ != other.of_tree_) return "the sums of nested groups";
  if (groups_of_ != other.groups_of_ || members_of_ != other.members_of_) return "the members";
  if (parent_of_ != other.parent_of_ || children_of_ != other.children_of_) return "the parents";
  return "";
}

}  // namespace bunker::controller
