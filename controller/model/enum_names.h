// The one spelling of each enum value: in rows on disk, in the tenant API and in the log.
//
// An enum E has a table `constexpr EnumName<E> kEnumNames_E[]` returned by EnumNames(E), found by
// argument-dependent look-up. Thread-safe: constants and free functions.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace bunker::controller {

template <typename E>
struct EnumName {
  E value;
  std::string_view name;
};

// The spelling of `value`, or "" where it is not in the table.
template <typename E>
std::string_view NameOf(E value) {
  for (const EnumName<E>& row : EnumNames(value)) {
    if (row.value == value) return row.name;
  }
  return "";
}

// The value spelled `name`, or nothing.
template <typename E>
std::optional<E> ParseEnum(std::string_view name) {
  for (const EnumName<E>& row : EnumNames(E{})) {
    if (row.name == name) return row.value;
  }
  return std::nullopt;
}

}  // namespace bunker::controller
