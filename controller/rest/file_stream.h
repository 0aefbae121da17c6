// A call's bytes and its one JSON answer over its HTTP exchange; a watch's events.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "controller/api/stream_sink.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// A RawBody, too. `size`: of the request's body, where the client said it.
std::shared_ptr<StreamSink> MakeFileStream(std::string request_id, std::optional<uint64_t> size,
                                           std::shared_ptr<HttpExchange> exchange);

// Sends v1::FileEvent to `exchange` as server-sent events, each named by its kind.
std::shared_ptr<StreamSink> MakeFileEventStream(std::string request_id,
                                                std::shared_ptr<HttpExchange> exchange);

}  // namespace bunker::controller
