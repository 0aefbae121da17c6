// A guard as its agent sees it: begun, found again, asked, ended. See guard_child.h.
//
// Thread-safe: free functions; calls for one folder must not overlap.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bunker/agent/v1/netguard.pb.h"

namespace bunker::agent {

// Begins a guard for the bunker of that folder and notes its process there. Its sockets are made
// inside the namespace.
absl::Status StartGuard(const std::string& folder, const std::string& name_space,
                        const v1::GuardConfig& config);

// Whether the folder's guard runs. Reaps one that has ended.
bool GuardRuns(const std::string& folder);

// Kills the folder's guard, if one runs. Only ever the process that was noted, told by its start
// time.
absl::Status EndGuard(const std::string& folder);

// What it has to tell. Its words are as good as a guest's: bounded and checked for form alone.
absl::StatusOr<v1::GuardReport> AskGuard(const std::string& folder);

}  // namespace bunker::agent
