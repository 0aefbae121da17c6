// Structured log: one line per state change on stderr, `level event key=value …`.
// Values are quoted and escaped, so that nothing a tenant or a guest wrote can forge a line.
//
// Thread-safe. Never log secrets; there is no per-chunk logging anywhere.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace bunker {

enum class Severity { kDebug, kInfo, kWarning, kError };

struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T>>>
  LogField(std::string_view k, T v) : key(k), value(std::to_string(v)) {}
  std::string key;
  std::string value;
};

// `event` is a stable dotted name, such as "image.ready".
void Log(Severity severity, std::string_view event, std::initializer_list<LogField> fields = {});

// Lines below this are dropped. Default kInfo.
void SetLogThreshold(Severity severity);

}  // namespace bunker

// Our own broken invariant: say where, then die. Stays on in release builds.
#define BUNKER_CHECK(condition)                                                          \
  do {                                                                                   \
    if (!(condition)) ::bunker::CheckFailed(#condition, __FILE__, __LINE__);             \
  } while (false)

namespace bunker {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace bunker
