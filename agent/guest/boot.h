// From the initrd to a running user space: modules, disks, overlay root, mounts. Runs once, as
// PID 1, on one thread.
#pragma once

#include "agent/guest/error.h"
#include "agent/guest/fd.h"

namespace bunker::guest {

// Mounts /proc, /sys and /dev of the initrd and points stdin, stdout and stderr at /dev/null.
Error BootEarly();

// Loads every module of /modules, in the order of their names.
Error LoadModules();

// Waits for the virtio port named "agent" and opens it, non-blocking.
Error OpenAgentPort(Fd* port);

// Mounts base and private disk and makes their overlay the root of this process and its children.
// `rw_root` stays open on the private disk's file system.
Error EnterRoot(Fd* rw_root);

// What a user space expects around it: /proc … /run, cgroup2, sysctls, loopback, files of /etc
// where the image has none, uid 1000. `cgroup_root` is the cgroup2 mount.
Error PrepareRoot(Fd* cgroup_root);

// PID 1 is the last process the OOM killer may take, and the first to get the CPU.
Error ProtectPid1();

}  // namespace bunker::guest
