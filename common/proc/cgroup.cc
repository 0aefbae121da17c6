#include "common/proc/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <set>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxProcFile = 1 << 20;
constexpr uint64_t kPeriodUs = 20'000;
constexpr int kRemoveTries = 50;
constexpr const char* kUsed[] = {"cpu", "memory", "pids"};
constexpr char kOwnLeaf[] = "agent";

bool IsPlainName(const std::string& name) {
  return !name.empty() && name.size() <= 128 && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
         });
}

absl::Status WriteControl(const std::string& path, const std::string& value) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "open " + path);
  if (::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    return ErrnoError(errno, "write " + value + " to " + path);
  }
  return absl::OkStatus();
}

absl::Status MakeGroup(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0 || errno == EEXIST) return absl::OkStatus();
  return ErrnoError(errno, "make the control group " + path);
}

struct Mount {
  std::string folder;
  std::set<std::string> controllers;  // version 1
};

struct Mounts {
  std::vector<Mount> first;  // version 1
  std::string second;        // version 2, "" = none
};

Mounts ParseMounts(const std::string& text) {
  Mounts mounts;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() < 4) continue;
    if (words[2] == "cgroup2" && mounts.second.empty()) mounts.second = words[1];
    if (words[2] != "cgroup") continue;
    const std::vector<std::string> options = absl::StrSplit(words[3], ',');
    mounts.first.push_back({words[1], {options.begin(), options.end()}});
  }
  return mounts;
}

// This process's group in the hierarchy of `controller`; "" is version 2's.
std::string OwnGroup(const std::string& self, const std::string& controller) {
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(self, '\n'))) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<std::string> names = absl::StrSplit(parts[1], ',');
    if (std::find(names.begin(), names.end(), controller) != names.end()) return parts[2];
  }
  return "/";
}

// Below the mount. In a container the path may be one of the host's that isn't seen here.
std::string OwnFolder(const std::string& mount, const std::string& group) {
  const std::string folder = group == "/" ? mount : mount + group;
  return fs::is_directory(folder) ? folder : mount;
}

// The group that all others are made in. It may be there already, and not ours to change: a
// container sees the host's on a file system that it can only read.
absl::Status MakeRootGroup(const std::string& folder) {
  RETURN_IF_ERROR(MakeGroup(folder));
  if (::access(folder.c_str(), W_OK) != 0)
    return ErrnoError(errno, "make control groups in " + folder);
  return absl::OkStatus();
}

absl::Status OpenTree(const std::string& own, const std::string& folder) {
  constexpr char kAll[] = "+cpu +memory +pids";
  RETURN_IF_ERROR(WriteControl(own + "/cgroup.subtree_control", kAll));
  RETURN_IF_ERROR(MakeRootGroup(folder));
  return WriteControl(folder + "/cgroup.subtree_control", kAll);
}

}  // namespace

absl::StatusOr<CgroupRoot> CgroupRoot::Open(const std::string& name) { return Open(name, Paths()); }

absl::StatusOr<CgroupRoot> CgroupRoot::Open(const std::string& name, const Paths& paths) {
  if (!IsPlainName(name)) return absl::InvalidArgumentError("not a control group's name: " + name);
  ASSIGN_OR_RETURN(const std::string mounted, ReadFile(paths.mounts, kMaxProcFile));
  ASSIGN_OR_RETURN(const std::string self, ReadFile(paths.self, kMaxProcFile));
  const Mounts mounts = ParseMounts(mounted);
  CgroupRoot root;
  root.version_ = 1;
  for (const char* controller : kUsed) {
    for (const Mount& mount : mounts.first) {
      if (mount.controllers.count(controller) == 0) continue;
      const std::string folder =
          OwnFolder(mount.folder, OwnGroup(self, controller)) + "/" + name;
      RETURN_IF_ERROR(MakeRootGroup(folder));
      root.controllers_.push_back({controller, folder});
      break;
    }
  }
  if (!root.controllers_.empty()) return root;
  if (mounts.second.empty()) {
    return absl::UnavailableError("the host has no control groups mounted (see /proc/mounts)");
  }
  std::string own = OwnFolder(mounts.second, OwnGroup(self, ""));
  if (own != mounts.second) {
    // Processes live in leaves alone. Were groups made below a service's own, systemd could not
    // start that service again while a VM lives.
    if (fs::path(own).filename() != kOwnLeaf) {
      return absl::UnavailableError(
          "control groups of version 2 need this service to run in a leaf of its own: set "
          "DelegateSubgroup=agent (systemd 254 or later)");
    }
    own = fs::path(own).parent_path();
  }
  const std::string folder = own + "/" + name;
  RETURN_IF_ERROR(Annotate(OpenTree(own, folder),
                           "control groups can't be made below " + own +
                               "; let systemd delegate them (Delegate=yes)"));
  root.version_ = 2;
  root.controllers_.push_back({"", folder});
  return root;
}

std::string CgroupRoot::FolderOf(const std::string& controller) const {
  for (const Controller& each : controllers_) {
    if (version_ == 2 || each.name == controller) return each.folder;
  }
  return "";
}

std::string CgroupRoot::FileOf(const std::string& controller, const std::string& name,
                               const char* file) const {
  const std::string folder = FolderOf(controller);
  return folder.empty() ? "" : folder + "/" + name + "/" + file;
}

absl::Status CgroupRoot::Create(const std::string& name, const CgroupLimits& limits) const {
  if (!IsPlainName(name)) return absl::InvalidArgumentError("not a control group's name: " + name);
  for (const Controller& controller : controllers_)
    RETURN_IF_ERROR(MakeGroup(controller.folder + "/" + name));
  const auto set = [&](const char* controller, const char* file,
                       const std::string& value) -> absl::Status {
    const std::string path = FileOf(controller, name, file);
    return path.empty() ? absl::OkStatus() : WriteControl(path, value);
  };
  const uint64_t quota = uint64_t{limits.cpu_millicores} * kPeriodUs / 1000;
  if (limits.cpu_millicores > 0 && version_ == 1) {
    RETURN_IF_ERROR(set("cpu", "cpu.cfs_period_us", std::to_string(kPeriodUs)));
    RETURN_IF_ERROR(set("cpu", "cpu.cfs_quota_us", std::to_string(quota)));
  } else if (limits.cpu_millicores > 0) {
    RETURN_IF_ERROR(
        set("cpu", "cpu.max", std::to_string(quota) + " " + std::to_string(kPeriodUs)));
  }
  if (limits.memory_bytes > 0) {
    RETURN_IF_ERROR(set("memory", version_ == 1 ? "memory.limit_in_bytes" : "memory.max",
                        std::to_string(limits.memory_bytes)));
  }
  if (limits.pids > 0) RETURN_IF_ERROR(set("pids", "pids.max", std::to_string(limits.pids)));
  return absl::OkStatus();
}

absl::Status CgroupRoot::Add(const std::string& name, int pid) const {
  for (const Controller& controller : controllers_) {
    RETURN_IF_ERROR(WriteControl(controller.folder + "/" + name + "/cgroup.procs",
                                 std::to_string(pid)));
  }
  return absl::OkStatus();
}

absl::Status CgroupRoot::Remove(const std::string& name) const {
  if (!IsPlainName(name)) return absl::InvalidArgumentError("not a control group's name: " + name);
  for (const Controller& controller : controllers_) {
    const std::string path = controller.folder + "/" + name;
    for (int tries = 0; ::rmdir(path.c_str()) != 0 && errno != ENOENT; ++tries) {
      if (errno != EBUSY || tries == kRemoveTries) return ErrnoError(errno, "rmdir " + path);
      absl::SleepFor(absl::Milliseconds(20));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> CgroupRoot::List() const {
  std::set<std::string> names;
  std::error_code error;
  for (const Controller& controller : controllers_) {
    for (const fs::directory_entry& entry : fs::directory_iterator(controller.folder, error)) {
      if (entry.is_directory(error)) names.insert(entry.path().filename());
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace bunker
