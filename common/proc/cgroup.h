// Control groups of the host, one for each child that is to be bounded: version 1 or 2, whichever
// the host has (found in /proc/mounts). They lie below this process's own, in version 2 beside it,
// so that what systemd delegates to a service is enough.
//
// Thread-safe: nothing changes after Open(). Blocking for microseconds; Remove() up to a second.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bunker {

struct CgroupLimits {
  uint32_t cpu_millicores = 0;  // 0: no limit, as with the others
  uint64_t memory_bytes = 0;
  uint32_t pids = 0;
};

class CgroupRoot {
 public:
  struct Paths {
    std::string mounts = "/proc/mounts";
    std::string self = "/proc/self/cgroup";
  };

  // Makes the folder `name`, a plain word, in which the groups are. kUnavailable where the host has
  // no controller that this process may use, with the reason for the operator.
  static absl::StatusOr<CgroupRoot> Open(const std::string& name);
  static absl::StatusOr<CgroupRoot> Open(const std::string& name, const Paths& paths);

  int version() const { return version_; }

  // The group `name`, a plain word, with these limits; one that is there gets them.
  absl::Status Create(const std::string& name, const CgroupLimits& limits) const;
  // Moves the process with all of its threads.
  absl::Status Add(const std::string& name, int pid) const;
  // After the last process in it has ended; the kernel may need a moment to notice. None there is
  // fine.
  absl::Status Remove(const std::string& name) const;
  std::vector<std::string> List() const;

 private:
  CgroupRoot() = default;
  std::string FolderOf(const std::string& controller) const;  // "" where there is none
  std::string FileOf(const std::string& controller, const std::string& name,
                     const char* file) const;

  int version_ = 2;
  struct Controller {
    std::string name;  // cpu, memory, pids; "" = all, in version 2
    std::string folder;
  };
  std::vector<Controller> controllers_;
};

}  // namespace bunker
