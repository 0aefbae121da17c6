// A shell over a WebSocket: the terminal's bytes as binary messages, the rest as JSON texts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "controller/api/stream_sink.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// Whether the request asks to become a WebSocket (RFC 6455, version 13).
bool WantsWebSocket(const HttpRequest& request);

// A browser says which page asks. OK where there is none, where it is of this very host, or in
// `allowed` ("https://console.example"); else AUTHZ_PERMISSION_DENIED.
absl::Status CheckOrigin(const HttpRequest& request, const std::vector<std::string>& allowed);

// The client of `exchange`, to be upgraded once the shell runs; errors before that are answered as
// any other. One that asks for no WebSocket is no terminal, and is refused.
std::shared_ptr<StreamSink> MakeShellSocket(std::string request_id, HttpRequest request,
                                            std::shared_ptr<HttpExchange> exchange);

}  // namespace bunker::controller
