// bunker-guest: PID 1 of a bunker. See README.md.
#include <fcntl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "agent/guest/boot.h"
#include "agent/guest/exec_server.h"
#include "agent/guest/grow_disk.h"
#include "agent/guest/setup.h"
#include "agent/guest/shutdown.h"
#include "agent/guest/small_file.h"
#include "agent/guest/sync_disk.h"

namespace bunker::guest {
namespace {

void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  reboot(RB_DISABLE_CAD);
}

Error BootRoot(Fd* rw_root, Fd* cgroup_root) {
  if (Error error = EnterRoot(rw_root); !error.ok()) return error;
  if (Error error = PrepareRoot(cgroup_root); !error.ok()) return error;
  if (Error error = BringLoopbackUp(); !error.ok()) return error;
  // What an image holds under these names may make this fail; it runs all the same, and uid 1000
  // then has no name.
  mkdir("/etc", 0755);
  [[maybe_unused]] const Error user = EnsureUser1000("/etc", "/home");
  // Empty where an image has none: a clone then writes into its template's, and makes none.
  for (const char* name : {"hostname", "hosts", "resolv.conf"})
    [[maybe_unused]] const Error made = EnsureEtcFile("/etc", name, "");
  return ProtectPid1();
}

int RunAsInit() {
  BlockSignals();
  Fd port, rw_root, cgroup_root;
  Error early = BootEarly();
  if (early.ok()) early = LoadModules();
  if (early.ok()) early = OpenAgentPort(&port);
  if (!early.ok()) {
    // Nobody can be told over the channel: the kernel's log is all there is.
    [[maybe_unused]] const Error log =
        WriteSmallFile(AT_FDCWD, "/dev/kmsg", 0, 0, "bunker-guest: " + early.message + "\n");
    ShutDown(0, -1);
  }
  const Error boot = BootRoot(&rw_root, &cgroup_root);
  ExecServer::Options options;
  options.port_fd = port.get();
  options.cgroup_root_fd = cgroup_root.get();
  options.boot_error = boot.message;
  options.configure = [&](const v1::GuestConfig& config) {
    std::vector<std::string> problems = ApplyConfig(config);
    if (config.sync_disk()) {
      if (Error error = SyncDisk(rw_root.get()); !error.ok()) problems.push_back(error.message);
    }
    if (config.rw_disk_bytes() == 0) return problems;
    if (Error error = GrowFileSystem(rw_root.get(), config.rw_disk_bytes()); !error.ok()) {
      problems.push_back(error.message);
    }
    return problems;
  };
  options.write_names = WriteNames;
  ExecServer server(std::move(options));
  const uint32_t grace_ms = server.Run();
  ShutDown(grace_ms, rw_root.get());
}

}  // namespace
}  // namespace bunker::guest

int main() {
  if (getpid() != 1) {
    std::fputs("bunker-guest is PID 1 of a bunker's guest; it does nothing elsewhere\n", stderr);
    return 2;
  }
  return bunker::guest::RunAsInit();
}
