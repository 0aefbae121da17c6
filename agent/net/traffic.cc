#include "agent/net/traffic.h"

#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "agent/net/namespace.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr char kPath[] = "/proc/thread-self/net/dev";
constexpr size_t kMaxBytes = 64 * 1024;
constexpr int kColumnsBetween = 7;  // of what was received, after its bytes
}  // namespace

Traffic ParseTraffic(std::string_view devices) {
  Traffic all;
  std::istringstream lines{std::string(devices)};
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string name = line.substr(0, colon);
    if (!absl::StartsWith(absl::StripLeadingAsciiWhitespace(name), "tap")) continue;
    std::istringstream numbers(line.substr(colon + 1));
    uint64_t received = 0, skipped = 0, sent = 0;
    numbers >> received;
    for (int i = 0; i < kColumnsBetween; ++i) numbers >> skipped;
    if (!(numbers >> sent)) continue;
    all.sent_bytes += received;
    all.received_bytes += sent;
  }
  return all;
}

absl::StatusOr<Traffic> ReadTraffic(const std::string& space) {
  Traffic traffic;
  RETURN_IF_ERROR(InNamespace(space, [&traffic]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string devices, ReadFile(kPath, kMaxBytes));
    traffic = ParseTraffic(devices);
    return absl::OkStatus();
  }));
  return traffic;
}

}  // namespace bunker::agent
