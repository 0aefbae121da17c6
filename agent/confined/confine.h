// Takes everything away from the calling process that a parser of hostile bytes has no use for.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/status/status.h"

namespace bunker::agent {

struct Confinement {
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t memory_bytes = 0;
  uint32_t cpu_seconds = 0;
  uint64_t file_bytes = 0;  // the largest file it may write
};

// An own empty network namespace, the given user, no capabilities (bounding set empty), no new
// privileges, rlimits, Landlock without any right where the kernel has it, and a seccomp list of
// what is allowed: computing, and using the descriptors that are open. There is no way back.
//
// Call it from the only thread. Any step that fails is an error: nothing runs half confined.
absl::Status Confine(const Confinement& confinement);

// A part of it: the given user, no capabilities, no new privileges, ends with its parent.
absl::Status DropPrivileges(uid_t uid, gid_t gid);

}  // namespace bunker::agent
