// Internal to agent/pull: from HTTP answers and transport errors to the cache row's codes.
// Thread-safe: free functions.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/http/http_client.h"

namespace bunker::agent {

// Takes secrets out of a text of the registry's; an empty function takes out nothing.
using ScrubFn = std::function<std::string(std::string)>;

// An answer that is no success. `subject` is what was asked for, as the user knows it: a ref, or
// a blob of it. Retryable ones are marked with kUnavailable.
absl::Status ErrorOfAnswer(const http::Response& response, std::string_view subject,
                           const ScrubFn& scrub);

// An error of http::Client, or one that a callback returned (which keeps its reason).
absl::Status ErrorOfTransport(const absl::Status& status, std::string_view subject);

// Whether the same request may succeed a moment later.
bool IsWorthAnotherTry(const absl::Status& status);

// The registry's own words in an error body, printable and short; "" where it said nothing.
std::string RegistryMessage(std::string_view body, const ScrubFn& scrub);

}  // namespace bunker::agent
