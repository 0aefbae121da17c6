// What a guest wrote to its console, as far back as kBytes. The VMM's own buffer gives each byte
// once; this log lies in the VM's folder, for everybody who asks, over restarts of the agent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/vm/vmm.h"

namespace bunker::agent {

struct ConsoleLog {
  static constexpr size_t kBytes = 256 * 1024;

  uint64_t begin = 0;  // the oldest offset that is kept; the first byte that was ever read has 0
  std::string kept;

  uint64_t end() const { return begin + kept.size(); }
  // REQUIRES: begin <= offset <= end().
  std::string_view From(uint64_t offset) const {
    return std::string_view(kept).substr(static_cast<size_t>(offset - begin));
  }
};

// Takes in what is new and tells all of it. One at a time for each VM; blocks for some ms.
absl::StatusOr<ConsoleLog> ReadConsoleLog(Vmm& vmm, const RunningVm& record);

}  // namespace bunker::agent
