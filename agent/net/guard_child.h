// The guard of one bunker's network as a process: our own binary, a user of its own, no
// capabilities, no files, no programs. It outlives the agent; when it dies, nothing more gets out.
#pragma once

namespace bunker::agent {

// argv[1] of such a process.
inline constexpr char kNetGuardArgument[] = "--net-guard";

// Descriptors it is given: its GuardConfig in a file, a bound UDP socket and a listener on the
// guest's side, and a listening unix socket on which it reports.
inline constexpr int kGuardConfigFd = 3;
inline constexpr int kGuardDnsFd = 4;
inline constexpr int kGuardProxyFd = 5;
inline constexpr int kGuardReportFd = 6;

// Serves until killed. The exit code where it could not begin.
int NetGuardMain();

}  // namespace bunker::agent
