// Whether a bunker fits into quotas, and the sums that this takes. Pure: told of changes, with no
// clock, no I/O and no rows of its own.
//
// Not thread-safe: the index belongs to the engine.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "controller/model/quota.h"

namespace bunker::controller {

// A cap that a create would go over.
struct QuotaBreach {
  std::string_view cap_name;  // as in the tenant API
  uint64_t cap = 0;
  uint64_t usage = 0;  // 0 for a cap of each bunker
  uint64_t asked = 0;
};

// The first cap that `count` bunkers, each counting for `each`, would go over on top of `usage`.
std::optional<QuotaBreach> BreachOf(const QuotaCaps& caps, const QuotaUsage& usage,
                                    const QuotaUsage& each, uint64_t count);

// What is in use, by user and by group of users. A check reads sums and adds nothing up.
class QuotaIndex {
 public:
  QuotaIndex() = default;
  QuotaIndex(const QuotaIndex&) = delete;
  QuotaIndex& operator=(const QuotaIndex&) = delete;

  // ---- changes ----------------------------------------------------------------------------------
  void Add(const std::string& user_id, const QuotaUsage& usage);
  // REQUIRES: so much was added.
  void Subtract(const std::string& user_id, const QuotaUsage& usage);
  void SetMember(const std::string& group_id, const std::string& user_id, bool is_member);
  // `parent_id` "": none.
  void SetParent(const std::string& group_id, const std::string& parent_id);

  // ---- reading ----------------------------------------------------------------------------------
  QuotaUsage OfUser(const std::string& user_id) const;
  // Its own members, without those of groups nested in it.
  QuotaUsage OfGroup(const std::string& group_id) const;
  // With them; a user who is in several of them counts once.
  QuotaUsage OfTree(const std::string& group_id) const;
  // The groups that the user is a member of.
  const std::set<std::string>& GroupsOf(const std::string& user_id) const;
  // These and the groups around them.
  std::set<std::string> GroupsAround(const std::string& user_id) const;

  // Where the two differ, "" where they hold the same.
  std::string Difference(const QuotaIndex& other) const;

 private:
  using Sums = std::unordered_map<std::string, QuotaUsage>;
  void UsersBelow(const std::string& group_id, std::set<std::string>& users,
                  std::set<std::string>& seen) const;
  // Takes the users' sums out of all trees, or puts them in again.
  void MoveTrees(const std::set<std::string>& users, bool in);

  Sums of_user_;
  Sums of_group_;
  Sums of_tree_;
  std::unordered_map<std::string, std::set<std::string>> groups_of_;   // by user
  std::unordered_map<std::string, std::set<std::string>> members_of_;  // by group
  std::unordered_map<std::string, std::string> parent_of_;
  std::unordered_map<std::string, std::set<std::string>> children_of_;
};

}  // namespace bunker::controller
