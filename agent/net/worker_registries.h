// Which package registries this worker's own apt, pip and npm use: what bunkers of the profile
// `registry` may reach where the operator names none. No registry's name is written down here.
#pragma once

#include <string>
#include <vector>

namespace bunker::agent {

// Host names, sorted, each once. Reads the tools' files and, where those name none, asks pip and
// npm for what they were built with: some seconds, bounded; what does not answer counts for none.
std::vector<std::string> WorkerRegistries();

// The hosts of all http and https URLs in `text`, which may be anything. For tests.
std::vector<std::string> HostsInText(const std::string& text);

}  // namespace bunker::agent
