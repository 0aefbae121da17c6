// What every answer is wrapped in.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>

#include "controller/api/errors.h"
#include "controller/rest/http_types.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// Of an answer that is a page: the field that holds the rows. Else nullptr.
const google::protobuf::FieldDescriptor* ListFieldOf(const google::protobuf::Descriptor* answer);

// Creates answer 201, everything else 200.
int SuccessStatus(const google::protobuf::MethodDescriptor* method);

// {"status":"ok","data":…,"meta":{"request_id"}}. A message with has_more and next_cursor is a
// page: its list becomes data, the two stand at the top level.
std::string OkEnvelope(const google::protobuf::Message& data, std::string_view request_id);

// {"status":"error","error":{"code","message",…},"meta":{"request_id"}}.
std::string ErrorEnvelope(const ErrorView& error, std::string_view request_id);

HttpResponse OkResponse(int http_status, const google::protobuf::Message& data,
                        std::string_view request_id);
// A whole list whose rows are JSON already.
HttpResponse OkListResponse(std::string_view rows_json, std::string_view request_id);
// What an RPC marked `flat` answers with: no envelope, nothing absent.
HttpResponse FlatResponse(const google::protobuf::Message& data, std::string_view request_id);
// Its errors: {"error_code", "error_msg"}.
HttpResponse FlatErrorResponse(const ErrorView& error, std::string_view request_id);
// With Retry-After where the error says when to come back.
HttpResponse ErrorResponse(const ErrorView& error, std::string_view request_id);

}  // namespace bunker::controller
