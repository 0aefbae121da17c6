// What a bake by hand tells when it is done: JSON for programs, a few lines for people.
//
// Thread-safe: free functions.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "agent/bake/bake_types.h"
#include "agent/pull/pull_types.h"

namespace bunker::agent {

// The command's own steps around the bake, which tells of its stages itself.
struct StepTime {
  std::string name;  // "resolve", "pull", "bake", "publish"
  double wall_seconds = 0;
  double cpu_seconds = 0;  // of this process; the bake's child has its own
};

struct BakeReport {
  std::string source;
  std::string file;
  std::string tree_file;  // empty: none was kept
  std::string arch;
  ResolvedImage image;
  BakeSummary summary;
  std::vector<StepTime> steps;
  double wall_seconds = 0;
  double cpu_seconds = 0;       // of this process and the bake's child together
  uint64_t peak_rss_bytes = 0;  // of this process; the child's is in the summary
};

// One JSON object, with a newline. Fields are described in the agent's README.
std::string ReportJson(const BakeReport& report);
std::string ReportText(const BakeReport& report);

// {"error": {"code": …, "message": …}} with a newline. REQUIRES: not OK.
std::string ErrorJson(const absl::Status& status);
// "CODE: message".
std::string ErrorText(const absl::Status& status);

}  // namespace bunker::agent
