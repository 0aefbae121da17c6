#include "agent/reconcile/console_log.h"

#include "absl/strings/numbers.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxLineBytes = 32;
constexpr unsigned kMode = 0600;

// "<begin>\n<bytes>". Where it can't be read there is no log yet, or none any more.
ConsoleLog Kept(const std::string& path) {
  ConsoleLog log;
  const absl::StatusOr<std::string> text =
      ReadFile(path, ConsoleLog::kBytes + kMaxLineBytes);
  if (!text.ok()) return log;
  const size_t line = text->find('\n');
  if (line == std::string::npos || !absl::SimpleAtoi(text->substr(0, line), &log.begin))
    return ConsoleLog();
  log.kept = text->substr(line + 1);
  return log;
}

}  // namespace

absl::StatusOr<ConsoleLog> ReadConsoleLog(Vmm& vmm, const RunningVm& record) {
  const std::string path = record.folder + "/console.log";
  ConsoleLog log = Kept(path);
  ASSIGN_OR_RETURN(const std::string news, vmm.ReadConsole(record));
  if (news.empty()) return log;
  log.kept += news;
  if (log.kept.size() > ConsoleLog::kBytes) {
    const size_t dropped = log.kept.size() - ConsoleLog::kBytes;
    log.begin += dropped;
    log.kept.erase(0, dropped);
  }
  RETURN_IF_ERROR(
      WriteFileDurably(path, std::to_string(log.begin) + "\n" + log.kept, kMode));
  return log;
}

}  // namespace bunker::agent
