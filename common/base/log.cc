#include "common/base/log.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace bunker {
namespace {
std::atomic<Severity> threshold{Severity::kInfo};
constexpr size_t kMaxValueBytes = 2048;

const char* NameOf(Severity severity) {
  switch (severity) {
    case Severity::kDebug: return "DEBUG";
    case Severity::kInfo: return "INFO";
    case Severity::kWarning: return "WARN";
    case Severity::kError: return "ERROR";
  }
  return "?";
}

bool IsPlain(std::string_view value) {
  if (value.empty()) return false;
  for (const char c : value) {
    if (c <= ' ' || c == '"' || c == '\\' || c == '=' || static_cast<unsigned char>(c) >= 0x7f)
      return false;
  }
  return true;
}

void AppendValue(std::string& line, std::string_view value) {
  value = value.substr(0, kMaxValueBytes);
  if (IsPlain(value)) {
    line += value;
    return;
  }
  line += '"';
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      line += escaped;
    } else {
      line += c;
    }
  }
  line += '"';
}

void AppendTime(std::string& line) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[40];
  const size_t used = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + used, sizeof text - used, ".%03dZ", static_cast<int>(ms % 1000));
  line += text;
}

void WriteAll(std::string_view line) {
  while (!line.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
    if (n <= 0) return;  // nobody to tell: stderr is where we would have said it
    line.remove_prefix(static_cast<size_t>(n));
  }
}
}  // namespace

void SetLogThreshold(Severity severity) { threshold = severity; }

void Log(Severity severity, std::string_view event, std::initializer_list<LogField> fields) {
  if (severity < threshold.load()) return;
  std::string line;
  AppendTime(line);
  line.append(" ").append(NameOf(severity)).append(" ").append(event);
  for (const LogField& field : fields) {
    line.append(" ").append(field.key).append("=");
    AppendValue(line, field.value);
  }
  line += '\n';
  WriteAll(line);
}

void CheckFailed(const char* condition, const char* file, int line) {
  Log(Severity::kError, "check.failed", {{"condition", condition}, {"file", file}, {"line", line}});
  std::abort();
}

}  // namespace bunker
