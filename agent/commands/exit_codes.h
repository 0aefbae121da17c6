// How `bunker-agent bake` and `bunker-agent inspect` end. Scripts branch on these.
#pragma once

#include "absl/status/status.h"

namespace bunker::agent {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;       // this host: disk, memory, rights, or a bug
inline constexpr int kExitUsage = 2;        // the command line or the configuration
inline constexpr int kExitImage = 3;        // the image can't be baked, whoever tries
inline constexpr int kExitSource = 4;       // the image can't be had: registry, network, files
inline constexpr int kExitCancelled = 130;  // Ctrl-C, SIGTERM

// From an error's reason and code. REQUIRES: not OK.
int ExitCodeOf(const absl::Status& status);

}  // namespace bunker::agent
