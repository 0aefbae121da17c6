#pragma once

namespace bunker::controller {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace bunker::controller
