#include "common/proc/process_usage.h"

#include <unistd.h>

#include <sstream>
#include <string>

#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace bunker {
namespace {

constexpr size_t kMaxBytes = 4096;
constexpr int kTimesBefore = 11;  // fields between the state and utime

}  // namespace

absl::StatusOr<ProcessUsage> UsageOf(int pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  const auto stat = ReadFile(folder + "/stat", kMaxBytes);
  const auto statm = ReadFile(folder + "/statm", kMaxBytes);
  if (!stat.ok() || !statm.ok()) return absl::NotFoundError("no process " + std::to_string(pid));
  // The name before may hold anything, a bracket too.
  const size_t name_end = stat->rfind(')');
  if (name_end == std::string::npos) return absl::InternalError(folder + "/stat has no name");
  std::istringstream fields(stat->substr(name_end + 2));
  std::string skipped;
  for (int i = 0; i < kTimesBefore; ++i) fields >> skipped;
  uint64_t user = 0, system = 0, size = 0, resident = 0;
  fields >> user >> system;
  std::istringstream(*statm) >> size >> resident;
  if (!fields) return absl::InternalError(folder + "/stat has too few fields");
  ProcessUsage usage;
  usage.cpu_s = static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  usage.rss_bytes = resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return usage;
}

}  // namespace bunker
