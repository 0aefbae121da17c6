// From an ExecStart to what is really run: who, where, with which environment.
// Pure: the image's users come in as a value.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/guest/users.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

inline constexpr char kDefaultPath[] =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
inline constexpr uint32_t kDefaultUid = 1000;

// What GuestConfig leaves behind for commands.
struct Defaults {
  std::map<std::string, std::string> env;
  std::string cwd;
  std::string user;
  std::string hostname;
};

struct Command {
  std::vector<std::string> argv;  // argv[0] may need a search along PATH
  std::vector<std::string> env;   // "K=V"
  std::string path;               // PATH of that environment
  std::string cwd;
  Identity identity;
  std::optional<winsize> terminal;  // set: it runs on one of that size
  bool no_new_privileges = false;  // set-uid programs of the image must not make it root
};

struct CommandError {
  v1::ExecError::Kind kind = v1::ExecError::KIND_UNSPECIFIED;  // UNSPECIFIED: fine
  std::string message;
  bool ok() const { return kind == v1::ExecError::KIND_UNSPECIFIED; }
};

// A size that a terminal can have.
winsize WindowOf(const v1::Terminal& size);

// Who is asked for, and what the caller may be.
struct IdentityWish {
  std::string user;  // empty: the default
  bool allow_root = false;
  bool default_to_1000 = false;
};
CommandError ChooseIdentity(const IdentityWish& wish, const Defaults& defaults,
                            const UserDb& users, Identity* identity);

CommandError PrepareCommand(const v1::ExecStart& start, const Defaults& defaults,
                            const UserDb& users, Command* command);

}  // namespace bunker::guest
