#pragma once

namespace bunker::agent {
inline constexpr char kAgentVersion[] = "0.1.0";
}  // namespace bunker::agent
