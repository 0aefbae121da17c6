#include "agent/guest/command.h"

#include <algorithm>
#include <utility>

namespace bunker::guest {
namespace {

bool HasNul(const std::string& text) {
  return text.find('\0') != std::string::npos;
}

CommandError Invalid(std::string message) {
  return {v1::ExecError::INVALID, std::move(message)};
}

CommandError ChooseArgv(const v1::ExecStart& start, Command* command) {
  if ((start.argv_size() > 0) == !start.shell().empty()) {
    return Invalid("give exactly one of argv and a shell string, not empty");
  }
  if (start.argv_size() > 0) {
    command->argv.assign(start.argv().begin(), start.argv().end());
    if (command->argv[0].empty()) return Invalid("the first word of the command is empty");
  } else {
    command->argv = {"/bin/sh", "-c", start.shell()};
  }
  for (const std::string& word : command->argv) {
    if (HasNul(word)) return Invalid("a word of the command holds a NUL byte");
  }
  return {};
}

}  // namespace

CommandError ChooseIdentity(const IdentityWish& wish, const Defaults& defaults,
                            const UserDb& users, Identity* identity) {
  const std::string fallback = defaults.user.empty() ? "0" : defaults.user;
  const std::string& spec = wish.user.empty() ? fallback : wish.user;
  if (Error error = users.Resolve(spec, identity); !error.ok()) return Invalid(error.message);
  if (identity->uid == 0 && wish.user.empty() && wish.default_to_1000) {
    if (Error error = users.Resolve(std::to_string(kDefaultUid), identity); !error.ok()) {
      return Invalid(error.message);
    }
  }
  if (identity->uid == 0 && !wish.allow_root) {
    return {v1::ExecError::ROOT_DENIED, "user \"" + spec + "\" is uid 0 in this bunker"};
  }
  return {};
}

winsize WindowOf(const v1::Terminal& size) {
  constexpr uint32_t kMax = 1000;
  winsize window{};
  window.ws_col = static_cast<uint16_t>(std::clamp<uint32_t>(size.columns(), 1, kMax));
  window.ws_row = static_cast<uint16_t>(std::clamp<uint32_t>(size.rows(), 1, kMax));
  return window;
}

CommandError PrepareCommand(const v1::ExecStart& start, const Defaults& defaults,
                            const UserDb& users, Command* command) {
  *command = Command{};
  if (CommandError error = ChooseArgv(start, command); !error.ok()) return error;
  const IdentityWish wish{start.user(), start.allow_root(), start.default_to_1000()};
  if (CommandError error = ChooseIdentity(wish, defaults, users, &command->identity);
      !error.ok()) {
    return error;
  }
  command->no_new_privileges = !start.allow_root();
  command->cwd = !start.cwd().empty() ? start.cwd() : defaults.cwd;
  if (command->cwd.empty()) command->cwd = "/";
  if (HasNul(command->cwd)) return Invalid("cwd holds a NUL byte");
  if (command->cwd.front() != '/') return Invalid("cwd must be an absolute path");

  std::map<std::string, std::string> env = {{"PATH", kDefaultPath},
                                            {"HOME", command->identity.home}};
  if (start.has_terminal()) {
    command->terminal = WindowOf(start.terminal());
    env["TERM"] = "xterm-256color";
  }
  if (!defaults.hostname.empty()) env["HOSTNAME"] = defaults.hostname;
  for (const auto& [name, value] : defaults.env) env[name] = value;
  for (const auto& [name, value] : start.env()) env[name] = value;
  for (const auto& [name, value] : env) {
    if (name.empty() || name.find('=') != std::string::npos || HasNul(name) || HasNul(value)) {
      return Invalid("environment name \"" + name + "\" or its value can't be set");
    }
    command->env.push_back(name + "=" + value);
  }
  command->path = env["PATH"];
  return {};
}

}  // namespace bunker::guest
