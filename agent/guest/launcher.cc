#include "agent/guest/launcher.h"

#include <fcntl.h>

#include <cstdlib>
#include <utility>

#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

constexpr size_t kMaxUserFileBytes = 4 << 20;

UserDb LoadUsers(const std::string& etc_folder) {
  std::string passwd, group;
  // An image without the files has no names; uids still work.
  if (!ReadSmallFile(AT_FDCWD, (etc_folder + "/passwd").c_str(), kMaxUserFileBytes, &passwd).ok()) {
    passwd.clear();
  }
  if (!ReadSmallFile(AT_FDCWD, (etc_folder + "/group").c_str(), kMaxUserFileBytes, &group).ok()) {
    group.clear();
  }
  return UserDb::Parse(passwd, group);
}

}  // namespace

Launcher::Launcher(int cgroup_root_fd, std::string etc_folder, std::string boot_error)
    : cgroup_root_fd_(cgroup_root_fd),
      etc_folder_(std::move(etc_folder)),
      boot_error_(std::move(boot_error)) {
  if (cgroup_root_fd_ < 0) return;
  [[maybe_unused]] const Error counted =
      WriteSmallFile(cgroup_root_fd_, "cgroup.subtree_control", 0, 0, "+pids");
  std::string text;
  if (!ReadSmallFile(AT_FDCWD, "/proc/sys/kernel/threads-max", 64, &text).ok()) return;
  processes_per_command_ = ProcessesPerCommand(std::strtoull(text.c_str(), nullptr, 10));
}

CommandError Launcher::Identify(const IdentityWish& wish, Identity* identity) const {
  if (!boot_error_.empty()) return {v1::ExecError::NOT_BOOTED, boot_error_};
  return ChooseIdentity(wish, defaults_, LoadUsers(etc_folder_), identity);
}

Error Launcher::MakeCgroup(Cgroup* cgroup) {
  const std::string name = "exec-" + std::to_string(++next_cgroup_);
  if (Error error = Cgroup::Create(cgroup_root_fd_, name, cgroup); !error.ok()) return error;
  // A kernel that can't count them runs the command all the same: it harms its own guest only.
  if (processes_per_command_ > 0)
    [[maybe_unused]] const Error limit = cgroup->LimitProcesses(processes_per_command_);
  return {};
}

void Launcher::MakeReady() {
  if (cgroup_root_fd_ < 0 || ready_.valid()) return;
  [[maybe_unused]] const Error error = MakeCgroup(&ready_);
}

CommandError Launcher::Launch(const v1::ExecStart& start, Launched* launched) {
  if (!boot_error_.empty()) return {v1::ExecError::NOT_BOOTED, boot_error_};
  Command command;
  if (CommandError error = PrepareCommand(start, defaults_, LoadUsers(etc_folder_), &command);
      !error.ok()) {
    return error;
  }
  launched->uid = command.identity.uid;
  if (cgroup_root_fd_ >= 0) {
    launched->cgroup = std::exchange(ready_, Cgroup());
    // The guest's root may have removed it meanwhile.
    if (!launched->cgroup.Exists()) {
      if (Error error = MakeCgroup(&launched->cgroup); !error.ok())
        return {v1::ExecError::FAILED, error.message};
    }
  }
  const Cgroup* cgroup = launched->cgroup.valid() ? &launched->cgroup : nullptr;
  CommandError error = Spawn(command, start.open_stdin(), cgroup, &launched->child);
  if (!error.ok()) launched->cgroup.Remove();
  return error;
}

}  // namespace bunker::guest
