#include "agent/guest/users.h"

#include <algorithm>
#include <cstdint>

namespace bunker::guest {
namespace {

constexpr size_t kMaxSupplementaryGroups = 256;

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

template <typename Entry, typename Predicate>
const Entry* FindFirst(const std::vector<Entry>& entries, Predicate matches) {
  const auto found = std::find_if(entries.begin(), entries.end(), matches);
  return found == entries.end() ? nullptr : &*found;
}

}  // namespace

bool ParseId(std::string_view text, uint32_t* id) {
  if (text.empty() || text.size() > 10) return false;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  if (value >= UINT32_MAX) return false;  // (uid_t)-1 means "leave it" to the kernel
  *id = static_cast<uint32_t>(value);
  return true;
}

UserDb UserDb::Parse(std::string_view passwd, std::string_view group) {
  UserDb db;
  for (const std::string_view line : Split(passwd, '\n')) {
    const auto fields = Split(line, ':');
    PasswdEntry entry;
    if (fields.size() < 7 || fields[0].empty() || line.front() == '#') continue;
    if (!ParseId(fields[2], &entry.uid) || !ParseId(fields[3], &entry.gid)) continue;
    entry.name = fields[0];
    entry.home = fields[5];
    db.users_.push_back(std::move(entry));
  }
  for (const std::string_view line : Split(group, '\n')) {
    const auto fields = Split(line, ':');
    GroupEntry entry;
    if (fields.size() < 4 || fields[0].empty() || line.front() == '#') continue;
    if (!ParseId(fields[2], &entry.gid)) continue;
    entry.name = fields[0];
    for (const std::string_view member : Split(fields[3], ',')) {
      if (!member.empty()) entry.members.emplace_back(member);
    }
    db.groups_.push_back(std::move(entry));
  }
  return db;
}

const PasswdEntry* UserDb::ByName(std::string_view name) const {
  return FindFirst(users_, [&](const PasswdEntry& entry) { return entry.name == name; });
}
const PasswdEntry* UserDb::ByUid(uid_t uid) const {
  return FindFirst(users_, [&](const PasswdEntry& entry) { return entry.uid == uid; });
}
const GroupEntry* UserDb::GroupByName(std::string_view name) const {
  return FindFirst(groups_, [&](const GroupEntry& entry) { return entry.name == name; });
}
const GroupEntry* UserDb::GroupByGid(gid_t gid) const {
  return FindFirst(groups_, [&](const GroupEntry& entry) { return entry.gid == gid; });
}

Error UserDb::Resolve(std::string_view spec, Identity* identity) const {
  *identity = Identity{};
  const size_t colon = spec.find(':');
  const std::string_view user = spec.substr(0, colon);
  const bool has_group = colon != std::string_view::npos;
  const std::string_view group = has_group ? spec.substr(colon + 1) : std::string_view();
  if (user.empty() || (has_group && group.empty())) {
    return {"user \"" + std::string(spec) + "\" is not name, uid, name:group or uid:gid"};
  }

  const PasswdEntry* entry = ByName(user);
  if (entry == nullptr) {
    if (!ParseId(user, &identity->uid)) {
      return {"the image has no user \"" + std::string(user) +
              "\"; name one of its /etc/passwd, "
              "or a uid"};
    }
    entry = ByUid(identity->uid);
  }
  if (entry != nullptr) {
    identity->uid = entry->uid;
    identity->gid = entry->gid;
    identity->name = entry->name;
    if (!entry->home.empty()) identity->home = entry->home;
  }

  if (has_group) {
    const GroupEntry* named = GroupByName(group);
    if (named != nullptr) {
      identity->gid = named->gid;
    } else if (!ParseId(group, &identity->gid)) {
      return {"the image has no group \"" + std::string(group) + "\""};
    }
    return {};
  }
  for (const GroupEntry& candidate : groups_) {
    const auto& members = candidate.members;
    if (identity->name.empty() || candidate.gid == identity->gid) continue;
    if (std::find(members.begin(), members.end(), identity->name) == members.end()) continue;
    if (identity->groups.size() < kMaxSupplementaryGroups) {
      identity->groups.push_back(candidate.gid);
    }
  }
  return {};
}

}  // namespace bunker::guest
