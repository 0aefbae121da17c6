#include "controller/rest/envelope.h"

#include <cmath>

#include <fmt/format.h>

#include "bunker/v1/options.pb.h"
#include "controller/rest/json_codec.h"

namespace bunker::controller {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void AppendMeta(std::string* out, std::string_view request_id) {
  *out += ",\"meta\":{\"request_id\":";
  AppendJsonString(out, request_id);
  *out += "}}";
}

// The field that is the whole of an answer of two shapes, or null.
const FieldDescriptor* ShapeOf(const Message& data) {
  const Descriptor* type = data.GetDescriptor();
  if (!type->options().GetExtension(v1::one_or_list)) return nullptr;
  const bool is_one = data.GetReflection()->HasField(data, type->field(0));
  return type->field(is_one ? 0 : 1);
}

int64_t RetrySeconds(absl::Duration after) {
  return static_cast<int64_t>(std::ceil(std::max(absl::ToDoubleSeconds(after), 0.0)));
}

HttpResponse JsonResponse(int http_status, std::string body, std::string_view request_id) {
  HttpResponse response;
  response.status = http_status;
  response.headers = {{"Content-Type", "application/json"},
                      {"Cache-Control", "no-store"},
                      {"X-Content-Type-Options", "nosniff"},
                      {"X-Request-Id", std::string(request_id)}};
  response.body = std::move(body);
  return response;
}

HttpResponse WithErrorHeaders(HttpResponse response, const ErrorView& error) {
  if (error.retry_after)
    response.headers.emplace_back("Retry-After", std::to_string(RetrySeconds(*error.retry_after)));
  if (error.row->http_status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace

const FieldDescriptor* ListFieldOf(const Descriptor* answer) {
  if (answer->FindFieldByName("next_cursor") == nullptr) return nullptr;
  for (int i = 0; i < answer->field_count(); ++i) {
    if (answer->field(i)->is_repeated()) return answer->field(i);
  }
  return nullptr;
}

int SuccessStatus(const google::protobuf::MethodDescriptor* method) {
  if (method->options().GetExtension(v1::flat)) return 200;
  const std::string_view name = method->name();
  return name.substr(0, 6) == "Create" || name.substr(0, 8) == "Register" ? 201 : 200;
}

std::string OkEnvelope(const Message& data, std::string_view request_id) {
  std::string out = "{\"status\":\"ok\",\"data\":";
  const FieldDescriptor* shape = ShapeOf(data);
  const FieldDescriptor* list = ListFieldOf(data.GetDescriptor());
  if (list != nullptr && (shape == nullptr || shape == list)) {
    AppendFieldJson(&out, data, list);
    for (const char* name : {"has_more", "next_cursor"}) {
      out += fmt::format(",\"{}\":", name);
      AppendFieldJson(&out, data, data.GetDescriptor()->FindFieldByName(name));
    }
  } else if (shape != nullptr) {
    AppendFieldJson(&out, data, shape);
  } else {
    AppendMessageJson(&out, data);
  }
  AppendMeta(&out, request_id);
  return out;
}

std::string ErrorEnvelope(const ErrorView& error, std::string_view request_id) {
  std::string out = "{\"status\":\"error\",\"error\":{\"code\":";
  AppendJsonString(&out, error.row->reason);
  out += ",\"message\":";
  AppendJsonString(&out, error.message);
  if (error.retry_after)
    out += fmt::format(",\"retry_after\":{}", RetrySeconds(*error.retry_after));
  if (!error.violations.empty()) {
    out += ",\"details\":[";
    for (size_t i = 0; i < error.violations.size(); ++i) {
      out += i == 0 ? "{\"field\":" : ",{\"field\":";
      AppendJsonString(&out, error.violations[i].field);
      out += ",\"message\":";
      AppendJsonString(&out, error.violations[i].message);
      out += '}';
    }
    out += ']';
  }
  if (error.placement) {
    for (const char* name : {"details", "counts"}) {
      out += fmt::format(",\"{}\":", name);
      AppendFieldJson(&out, *error.placement,
                      error.placement->GetDescriptor()->FindFieldByName(name));
    }
  }
  out += '}';
  AppendMeta(&out, request_id);
  return out;
}

HttpResponse OkResponse(int http_status, const Message& data, std::string_view request_id) {
  return JsonResponse(http_status, OkEnvelope(data, request_id), request_id);
}

HttpResponse OkListResponse(std::string_view rows_json, std::string_view request_id) {
  std::string body = fmt::format(
      "{{\"status\":\"ok\",\"data\":{},\"has_more\":false,\"next_cursor\":null", rows_json);
  AppendMeta(&body, request_id);
  return JsonResponse(200, std::move(body), request_id);
}

HttpResponse FlatResponse(const Message& data, std::string_view request_id) {
  std::string body;
  AppendPresentJson(&body, data);
  return JsonResponse(200, std::move(body), request_id);
}

HttpResponse ErrorResponse(const ErrorView& error, std::string_view request_id) {
  return WithErrorHeaders(
      JsonResponse(error.row->http_status, ErrorEnvelope(error, request_id), request_id), error);
}

HttpResponse FlatErrorResponse(const ErrorView& error, std::string_view request_id) {
  std::string body = "{\"error_code\":";
  AppendJsonString(&body, error.row->reason);
  body += ",\"error_msg\":";
  AppendJsonString(&body, error.message);
  body += '}';
  return WithErrorHeaders(JsonResponse(error.row->http_status, std::move(body), request_id), error);
}

}  // namespace bunker::controller
