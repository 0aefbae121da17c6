// What the guest's PID 1 returns where something can fail: it links no Abseil.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

namespace bunker::guest {

// Empty message: fine.
struct [[nodiscard]] Error {
  std::string message;
  bool ok() const { return message.empty(); }
};

// "`what`: <strerror(errno)>".
inline Error ErrnoError(std::string_view what) {
  const int number = errno;
  return {std::string(what) + ": " + std::strerror(number)};
}

}  // namespace bunker::guest
