// The form of an API key's secret.
#pragma once

#include <string>

namespace bunker::controller {

// "sgk_" and 43 characters of base62 (256 bits) from the system's generator. Thread-safe.
std::string NewApiKeySecret();

}  // namespace bunker::controller
