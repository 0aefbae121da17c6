// Network namespaces by name, and doing things inside one. Needs root.
//
// Thread-safe: free functions. Nothing of the calling thread changes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// A namespace seen by `ip netns` too. kAlreadyExists where the name is taken.
absl::Status MakeNamespace(const std::string& name);
// With all that is in it, once no process uses it. One that is not there is no error.
absl::Status RemoveNamespace(const std::string& name);
bool NamespaceExists(const std::string& name);

// Runs `work` on a thread of its own whose network is that namespace; programs it runs inherit it.
absl::Status InNamespace(const std::string& name, const std::function<absl::Status()>& work);

// A tool of the host with these lines on its standard input; an error holds what it said.
absl::Status RunNetTool(const std::vector<std::string>& argv, const std::string& input);
// The same, for what it prints.
absl::StatusOr<std::string> ReadNetTool(const std::vector<std::string>& argv);

inline constexpr char kNftPath[] = "/usr/sbin/nft";
inline constexpr char kIpPath[] = "/usr/sbin/ip";
inline constexpr char kTcPath[] = "/usr/sbin/tc";
inline constexpr char kBridgePath[] = "/usr/sbin/bridge";

}  // namespace bunker::agent
