// An HTTP request → the RPC's message: path variables, query parameters and body, each to its
// field.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "controller/rest/http_types.h"
#include "controller/rest/router.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// Fills `message`. VALIDATION_ERROR or UNSUPPORTED_MEDIA_TYPE.
absl::Status ReadRequest(const HttpRequest& request, const Router::Match& match,
                         google::protobuf::Message* message);

// The field that takes the body as it comes; null where the body is JSON.
const google::protobuf::FieldDescriptor* RawBodyOf(const Route& route);

// application/json, with no parameter but charset=utf-8; else UNSUPPORTED_MEDIA_TYPE.
absl::Status CheckMediaType(const HttpRequest& request);

// "a=1&b=x%20y" → pairs, decoded.
std::vector<std::pair<std::string, std::string>> SplitQuery(std::string_view query);

}  // namespace bunker::controller
