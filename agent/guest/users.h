// Users and groups of the image, from its own /etc/passwd and /etc/group: static glibc has no
// getpw*, and name services of the image must not run in PID 1.
//
// Pure; a UserDb is a value. A broken line is skipped, as libc does; the first match wins.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "agent/guest/error.h"

namespace bunker::guest {

struct PasswdEntry {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;
};
struct GroupEntry {
  std::string name;
  gid_t gid = 0;
  std::vector<std::string> members;
};

// What a command runs as.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary
  std::string name;           // "" where the uid has no entry
  std::string home = "/";
};

class UserDb {
 public:
  static UserDb Parse(std::string_view passwd, std::string_view group);

  const PasswdEntry* ByName(std::string_view name) const;
  const PasswdEntry* ByUid(uid_t uid) const;
  const GroupEntry* GroupByName(std::string_view name) const;
  const GroupEntry* GroupByGid(gid_t gid) const;

  // `spec`: name, uid, name:group, uid:gid. A name is looked up first, also one of digits; a uid
  // without an entry has gid 0, as container runtimes do. An explicit group replaces the
  // supplementary ones.
  Error Resolve(std::string_view spec, Identity* identity) const;

 private:
  std::vector<PasswdEntry> users_;
  std::vector<GroupEntry> groups_;
};

// Decimal digits only, at most 4294967294.
bool ParseId(std::string_view text, uint32_t* id);

}  // namespace bunker::guest
