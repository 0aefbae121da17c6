// The bake's typed errors, each with the code that the image row shows.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/converters.h"
#include "common/base/reason.h"

namespace bunker::agent {

// A member's name as it may appear in a message: printable and bounded.
inline std::string Printable(std::string_view name) {
  constexpr size_t kMaxShown = 200;
  std::string shown = absl::CHexEscape(ToAbsl(name.substr(0, kMaxShown)));
  if (name.size() > kMaxShown) shown += "…";
  return shown;
}

inline absl::Status LayerUnsupported(std::string_view member, std::string_view why) {
  return ReasonError(absl::StatusCode::kInvalidArgument, "LAYER_UNSUPPORTED",
                     absl::StrCat("member '", Printable(member), "': ", ToAbsl(why)));
}

inline absl::Status LayerRefused(std::string_view why) {
  return ReasonError(absl::StatusCode::kInvalidArgument, "LAYER_UNSUPPORTED", why);
}

inline absl::Status LayerCorrupt(std::string_view why) {
  return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT", why);
}

inline absl::Status OutOfMemory() {
  return ReasonError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     "the bake ran out of memory; give the worker more, or raise the bake's limit "
                     "in the agent's configuration");
}

inline absl::Status BakeInternal(std::string_view why) {
  return ReasonError(absl::StatusCode::kInternal, "INTERNAL", why);
}

}  // namespace bunker::agent
