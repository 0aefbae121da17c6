// What the account flows share: bounds, refusals, pages. Private to the engine's own files.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "controller/engine/specs.h"

namespace bunker::controller {

inline constexpr char kAdminPlatform[] = "scaibunker:admin:platform";

inline constexpr size_t kMaxPartners = 10'000;
inline constexpr size_t kMaxTenantsOfPartner = 10'000;
inline constexpr size_t kMaxUsersOfTenant = 20'000;
inline constexpr size_t kMaxUserGroupsOfTenant = 10'000;
inline constexpr size_t kMaxUserGroupDepth = 16;
inline constexpr size_t kMaxGroupsOfUser = 100;
inline constexpr size_t kMaxKeysOfUser = 1'000;  // revoked ones count until they are forgotten
inline constexpr size_t kMaxKeysOfTenant = 50'000;
inline constexpr absl::Duration kForgetKeysAfter = absl::Hours(24 * 30);
inline constexpr uint32_t kMaxRatePerS = 100'000;
inline constexpr absl::Duration kMaxKeyLifetime = absl::Hours(24 * 366 * 100);

absl::Status NameTaken(std::string_view noun, std::string_view name);
absl::Status InUse(const std::string& message);
absl::Status TooMany(std::string_view nouns, size_t limit);
absl::Status Stronger(std::string_view what);

// The page of `rows` (by id) that `keep` lets through, newest first.
template <typename T, typename Keep>
Page<T> NewestFirst(const std::map<std::string, RowPtr<T>>& rows, const PageSpec& page, Keep keep) {
  Page<T> result;
  auto it = page.after_id.empty() ? rows.end() : rows.lower_bound(page.after_id);
  while (it != rows.begin()) {
    --it;
    if (!keep(*it->second)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(it->second);
  }
  return result;
}

// The same over an index of ids.
template <typename T, typename Find, typename Keep>
Page<T> NewestFirst(const std::set<std::string>& ids, const PageSpec& page, Find find, Keep keep) {
  Page<T> result;
  auto it = page.after_id.empty() ? ids.end() : ids.lower_bound(page.after_id);
  while (it != ids.begin()) {
    --it;
    RowPtr<T> row = find(*it);
    if (!keep(*row)) continue;
    if (result.rows.size() == page.limit) {
      result.has_more = true;
      break;
    }
    result.rows.push_back(std::move(row));
  }
  return result;
}

}  // namespace bunker::controller
