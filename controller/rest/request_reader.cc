#include "controller/rest/request_reader.h"

#include <set>

#include <fmt/format.h>

#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "controller/api/errors.h"
#include "controller/rest/http_head.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"

namespace bunker::controller {
namespace {

using google::protobuf::Message;

std::string LowerTrimmed(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ' || c == '\t') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return out;
}

absl::Status ReadBody(const HttpRequest& request, const Route& route,
                      const std::set<std::string>& reserved, Message* message) {
  const bool takes_body = !route.body.empty();
  // No body at all is {}: which fields are needed is told by the fields' own rules.
  if (request.body.empty()) return absl::OkStatus();
  if (const auto* raw = RawBodyOf(route)) {
    message->GetReflection()->SetString(message, raw, request.body);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckMediaType(request));
  JsonValue json;
  JsonError error;
  if (!ParseJson(request.body, JsonLimits(), &json, &error))
    return ValidationError(error.field, error.message);
  if (!takes_body) {
    if (json.kind == JsonValue::Kind::kObject && json.members.empty()) return absl::OkStatus();
    return ValidationError(json.members.empty() ? "" : json.members.front().first,
                           "this route takes no body; leave it out");
  }
  Message* target = message;
  const bool is_whole = route.body == "*";
  if (!is_whole)
    target = message->GetReflection()->MutableMessage(
        message, message->GetDescriptor()->FindFieldByName(route.body));
  std::vector<FieldViolation> violations;
  JsonToMessage(json, is_whole ? reserved : std::set<std::string>(), target, &violations);
  return violations.empty() ? absl::OkStatus() : ValidationError(violations);
}

}  // namespace

const google::protobuf::FieldDescriptor* RawBodyOf(const Route& route) {
  if (route.body.empty() || route.body == "*") return nullptr;
  const auto* field = route.method->input_type()->FindFieldByName(route.body);
  return field->type() == google::protobuf::FieldDescriptor::TYPE_BYTES ? field : nullptr;
}

absl::Status CheckMediaType(const HttpRequest& request) {
  const std::string type = LowerTrimmed(request.Header("content-type"));
  if (type == "application/json" || type == "application/json;charset=utf-8" ||
      type == "application/json;charset=\"utf-8\"")
    return absl::OkStatus();
  return ApiError("UNSUPPORTED_MEDIA_TYPE",
                  "the body must be JSON; send it with Content-Type: application/json");
}

std::vector<std::pair<std::string, std::string>> SplitQuery(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> pairs;
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view item = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    pairs.emplace_back(PercentDecode(item.substr(0, equals), true),
                       equals == std::string_view::npos
                           ? ""
                           : PercentDecode(item.substr(equals + 1), true));
  }
  return pairs;
}

absl::Status ReadRequest(const HttpRequest& request, const Router::Match& match,
                         Message* message) {
  const Route& route = *match.route;
  std::set<std::string> reserved;  // set by the path or the body, so not by the query
  std::vector<FieldViolation> violations;
  for (const auto& [field, value] : match.variables) {
    reserved.insert(field);
    if (!IsUtf8(value)) {
      violations.push_back({field, "is not valid UTF-8"});
    } else {
      SetFieldFromText(field, value, message, &violations);
    }
  }
  std::set<std::string> seen;
  const size_t question = request.target.find('?');
  const std::string_view query = question == std::string::npos
                                     ? std::string_view()
                                     : std::string_view(request.target).substr(question + 1);
  for (const auto& [name, value] : SplitQuery(query)) {
    const std::string field = name.substr(0, name.find('.'));
    const bool elsewhere = reserved.count(field) > 0 || route.body == "*" || route.body == field;
    if (elsewhere || violations.size() >= 20) {
      violations.push_back({name, "is no parameter of this route; remove it"});
    } else if (!seen.insert(name).second) {
      violations.push_back({name, "is given twice; give it once"});
    } else {
      SetFieldFromText(name, value, message, &violations);
    }
    if (violations.size() > 20) break;
  }
  if (!violations.empty()) return ValidationError(violations);
  return ReadBody(request, route, reserved, message);
}

}  // namespace bunker::controller
