// A bunker's private disk: an empty ext4 file system in a sparse file, made in milliseconds.
//
// With a journal: the guest is often cut off in mid-write (its VM is killed, the host loses
// power), nothing ever checks this file system afterwards (a host must not parse what a guest
// wrote), and it may be mounted again. The journal is small and stays a hole until used.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace bunker::agent {

inline constexpr uint64_t kMinRwDiskMb = 64;
inline constexpr uint64_t kMaxRwDiskMb = 8 * 1024 * 1024;

// Makes `path`: `disk_mb` MiB, owned by `uid` and its group, mode 0600. Appears complete or not
// at all; kAlreadyExists where `path` is there. DISK_FULL where the host has no room even for its
// metadata (under 1 MiB for a small disk). Not synced: a disk that has no VM yet holds nothing.
// Thread-safe. Blocks for milliseconds.
absl::Status MakeRwDisk(const std::string& path, uint64_t disk_mb, uid_t uid);

}  // namespace bunker::agent
