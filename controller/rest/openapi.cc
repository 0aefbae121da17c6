#include "controller/rest/openapi.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "bunker/v1/common.pb.h"
#include "bunker/v1/file.pb.h"
#include "bunker/v1/options.pb.h"
#include "common/base/log.h"
#include "controller/api/auth.h"
#include "controller/api/errors.h"
#include "controller/rest/envelope.h"
#include "controller/rest/openapi_schema.h"
#include "controller/rest/request_reader.h"
#include "nlohmann/json.hpp"

namespace bunker::controller {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;
using Json = nlohmann::ordered_json;
using Side = SchemaBuilder::Side;

constexpr char kAbout[] =
    "Bunker turns container images into microVMs. Answers are wrapped: {status, data, meta}, "
    "lists with has_more and next_cursor beside data; errors are {status, error, meta}, and "
    "clients branch on error.code alone. Absent fields are null in answers; null in a request "
    "says that a field is absent. Unknown fields, duplicate keys and quoted numbers are refused.";

bool IsFlat(const MethodDescriptor* method) {
  return method->options().GetExtension(v1::flat);
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

// "ListAvailabilityGroups" → "List availability groups".
std::string SummaryOf(const std::string& name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool upper = name[i] >= 'A' && name[i] <= 'Z';
    const bool word = upper && i > 0 && (i + 1 == name.size() || name[i + 1] >= 'a');
    if (word) out += ' ';
    out += word ? static_cast<char>(name[i] + 32) : name[i];
  }
  return out;
}

class Document {
 public:
  Document(const Router& router, std::string_view version) : router_(router), version_(version) {}

  Json Build() {
    Json paths = Json::object();
    for (const Route& route : router_.routes())
      paths[TemplateOf(route)][Lower(route.verb)] = Operation(route);
    Json tags = Json::array();
    for (const auto& [name, comment] : tags_)
      tags.push_back({{"name", name}, {"description", comment}});
    Json document = {{"openapi", "3.1.0"},
                     {"info",
                      {{"title", "Bunker"},
                       {"version", version_},
                       {"description", kAbout},
                       {"license", {{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}}}},
                     {"servers", Json::array({Json::object({{"url", "/"}})})},
                     {"security", Json::array({Json::object({{"key", Json::array()}})})},
                     {"tags", std::move(tags)},
                     {"paths", std::move(paths)}};
    document["components"] = Components();
    return document;
  }

 private:
  Json Operation(const Route& route);
  Json Parameters(const Route& route, const MethodRule& rule);
  Json Parameter(const FieldDescriptor* field, const char* in);
  Json Responses(const Route& route, const MethodRule& rule);
  Json Success(const Route& route);
  Json Components();
  Json ErrorSchema(int http_status, const std::vector<std::string>& codes);
  static std::set<int> Statuses(const Route& route, const MethodRule& rule);

  const Router& router_;
  const std::string version_;
  SchemaBuilder schemas_;
  std::map<std::string, std::string> tags_;
  std::map<std::string, int> operations_;  // how often an RPC has come
  std::set<int> error_statuses_;           // that some operation answers
  bool flat_errors_ = false;
};

// Of the fields that neither the path nor the body sets.
bool IsQuery(const Route& route, const std::set<std::string>& in_path,
             const FieldDescriptor* field) {
  return route.body != "*" && route.body != field->name() && in_path.count(field->name()) == 0 &&
         SchemaBuilder::IsBuilt(field) &&
         (field->is_map() ||
          (!field->is_repeated() && field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE));
}

std::set<std::string> VariablesOf(const Route& route) {
  std::set<std::string> names;
  for (const Route::Segment& segment : route.segments)
    if (segment.is_variable) names.insert(segment.text);
  return names;
}

Json Document::Parameter(const FieldDescriptor* field, const char* in) {
  const bool path = std::string_view(in) == "path";
  Json parameter = {{"name", field->name()}, {"in", in}};
  parameter["required"] = path || SchemaBuilder::IsRequired(field);
  if (const std::string comment = schemas_.comments().Of(field); !comment.empty())
    parameter["description"] = comment;
  if (field->is_map()) {
    // ?label.<key>=<value>, any number of them: a form-style object whose keys are the names.
    parameter["style"] = "form";
    parameter["explode"] = true;
    parameter["schema"] = schemas_.Value(field, Side::kRequest);
    parameter["schema"]["propertyNames"] = {{"pattern", "^" + field->name() + "\\..+$"}};
    return parameter;
  }
  parameter["schema"] = schemas_.Value(field, Side::kRequest);
  if (path) parameter["schema"]["minLength"] = 1;
  return parameter;
}

Json Document::Parameters(const Route& route, const MethodRule& rule) {
  Json parameters = Json::array();
  const Descriptor* request = route.method->input_type();
  const std::set<std::string> in_path = VariablesOf(route);
  for (const Route::Segment& segment : route.segments) {
    if (segment.is_variable)
      parameters.push_back(Parameter(request->FindFieldByName(segment.text), "path"));
  }
  for (int i = 0; i < request->field_count(); ++i) {
    if (IsQuery(route, in_path, request->field(i)))
      parameters.push_back(Parameter(request->field(i), "query"));
  }
  if (rule.mutation) parameters.push_back({{"$ref", "#/components/parameters/IdempotencyKey"}});
  if (rule.mutation && in_path.count("bunker") > 0)
    parameters.push_back({{"$ref", "#/components/parameters/IfMatch"}});
  return parameters;
}

// Those that this route may answer with, beside its success.
std::set<int> Document::Statuses(const Route& route, const MethodRule& rule) {
  // What the server itself answers to a request that is not HTTP, too large, or one too many.
  std::set<int> statuses = {400, 413, 422, 431, 500, 503};
  if (rule.need != Need::kPublic) statuses.insert({401, 429});
  if (rule.need != Need::kPublic && rule.need != Need::kSignedIn) statuses.insert(403);
  // What the path names, a body refers to or a list is filtered by.
  if (rule.need != Need::kPublic) statuses.insert(404);
  if (!route.body.empty() && RawBodyOf(route) == nullptr) statuses.insert(415);
  if (route.verb != "GET") statuses.insert({409, 507});
  const std::string& name = route.method->name();
  const bool asks_guest = name == "Exec" || name.find("Process") != std::string::npos ||
                          name == "OpenShell" || route.method->service()->name() == "Files";
  if (asks_guest || name == "GetBunker" || name == "CreateBunker") statuses.insert(504);
  if (asks_guest) statuses.insert(409);
  return statuses;
}

Json BytesContent() {
  return {{"schema", {{"type", "string"}, {"format", "binary"}}}};
}

Json Document::Success(const Route& route) {
  const MethodDescriptor* method = route.method;
  const Descriptor* answer = method->output_type();
  if (IsFlat(method)) return schemas_.Ref(answer, Side::kFlat);
  Json properties = {{"status", {{"type", "string"}, {"const", "ok"}}}};
  const bool two_shapes = answer->options().GetExtension(v1::one_or_list);
  Json required = {"status", "data"};
  if (two_shapes) {
    properties["data"] = {{"oneOf",
                           {schemas_.Value(answer->field(0), Side::kAnswer),
                            schemas_.Value(answer->field(1), Side::kAnswer)}}};
    // Beside the list alone.
    for (const char* name : {"has_more", "next_cursor"}) {
      if (const FieldDescriptor* field = answer->FindFieldByName(name))
        properties[name] = schemas_.Property(field, Side::kAnswer);
    }
  } else if (const FieldDescriptor* list = ListFieldOf(answer)) {
    properties["data"] = schemas_.Value(list, Side::kAnswer);
    for (const char* name : {"has_more", "next_cursor"}) {
      properties[name] = schemas_.Property(answer->FindFieldByName(name), Side::kAnswer);
      required.push_back(name);
    }
  } else {
    properties["data"] = schemas_.Ref(answer, Side::kAnswer);
  }
  properties["meta"] = {{"$ref", "#/components/schemas/Meta"}};
  required.push_back("meta");
  return {
      {"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)}};
}

Json Document::Responses(const Route& route, const MethodRule& rule) {
  Json content = Json::object();
  const bool has_bytes = route.method->options().GetExtension(v1::raw_bytes);
  if (!route.method->server_streaming() || has_bytes)
    content["application/json"] = {{"schema", Success(route)}};
  if (route.method->options().GetExtension(v1::event_stream)) {
    content["text/event-stream"] = {
        {"schema",
         {{"description",
           "Server-sent events, each with an id where it can be gone on from; "
           "`event: error` holds {code, message} and ends the stream."}}}};
  }
  if (route.verb == "GET" && has_bytes) content["application/octet-stream"] = BytesContent();
  Json responses;
  if (content.empty()) {
    responses["101"] = {{"description", "The connection is a WebSocket from here on."}};
  } else {
    responses[std::to_string(SuccessStatus(route.method))] = {{"description", "Done."},
                                                              {"content", std::move(content)}};
  }
  for (const int status : Statuses(route, rule)) {
    error_statuses_.insert(status);
    const bool flat = IsFlat(route.method) && status != 400 && status != 413 && status != 431;
    flat_errors_ = flat_errors_ || flat;
    responses[std::to_string(status)] = {
        {"$ref", fmt::format("#/components/responses/{}{}", flat ? "Flat" : "Error", status)}};
  }
  return responses;
}

Json Document::Operation(const Route& route) {
  const MethodDescriptor* method = route.method;
  const MethodRule* rule = FindRule(method->full_name());
  BUNKER_CHECK(rule != nullptr);
  const std::string& tag = method->service()->name();
  tags_[tag] = schemas_.comments().Of(method->service());
  std::string description = schemas_.comments().Of(method);
  const auto say = [&description](const std::string& text) {
    description += (description.empty() ? "" : " ") + text;
  };
  if (rule->need == Need::kRead) say("Needs `scaibunker:create`, or being a tenant_viewer.");
  if (rule->need == Need::kKey) say(fmt::format("Needs `scaibunker:{}`.", rule->permission));
  const int seen = ++operations_[method->name()];
  Json operation = {
      {"operationId", seen == 1 ? method->name() : fmt::format("{}_{}", method->name(), seen)},
      {"tags", Json::array({tag})},
      {"summary", SummaryOf(method->name())}};
  if (!description.empty()) operation["description"] = description;
  if (rule->need == Need::kPublic) operation["security"] = Json::array();
  if (Json parameters = Parameters(route, *rule); !parameters.empty())
    operation["parameters"] = std::move(parameters);
  if (RawBodyOf(route) != nullptr) {
    operation["requestBody"] = {{"required", false},
                                {"content", {{"application/octet-stream", BytesContent()}}}};
  } else if (!route.body.empty()) {
    const Descriptor* request = method->input_type();
    const bool whole = route.body == "*";
    const Descriptor* body = whole ? request : request->FindFieldByName(route.body)->message_type();
    bool required = false;
    for (int i = 0; i < body->field_count(); ++i)
      required = required || SchemaBuilder::IsRequired(body->field(i));
    operation["requestBody"] = {{"required", required},
                                {"content",
                                 {{"application/json",
                                   {{"schema", whole ? schemas_.BodyRef(request, VariablesOf(route))
                                                     : schemas_.Ref(body, Side::kRequest)}}}}}};
  }
  if (route.verb == "PUT" && method->options().GetExtension(v1::raw_bytes))
    operation["requestBody"] = {{"content", {{"application/octet-stream", BytesContent()}}}};
  operation["responses"] = Responses(route, *rule);
  return operation;
}

Json Document::ErrorSchema(int http_status, const std::vector<std::string>& codes) {
  const auto text = [](const char* description) -> Json {
    return {{"type", "string"}, {"description", description}};
  };
  Json properties = {{"code", {{"type", "string"}, {"enum", codes}}},
                     {"message", text("The cause and the remedy, for people.")}};
  if (http_status == 429 || http_status == 503)
    properties["retry_after"] = {{"type", "integer"},
                                 {"minimum", 0},
                                 {"description", "Seconds; the header Retry-After says the same."}};
  if (http_status == 422 || http_status == 400)
    properties["details"] = {{"type", "array"},
                             {"items", {{"$ref", "#/components/schemas/FieldViolation"}}}};
  if (http_status == 503) {
    properties["details"] = {
        {"type", "array"},
        {"maxItems", 50},
        {"items", schemas_.Ref(v1::PlacementDetail::descriptor(), Side::kAnswer)},
        {"description", "With the two placement errors: why each worker was turned down."}};
    properties["counts"] = {{"type", "object"},
                            {"additionalProperties", {{"type", "integer"}}},
                            {"description", "How many workers each predicate turned down."}};
  }
  return {{"type", "object"},
          {"properties",
           {{"status", {{"type", "string"}, {"const", "error"}}},
            {"error",
             {{"type", "object"},
              {"properties", std::move(properties)},
              {"required", {"code", "message"}}}},
            {"meta", {{"$ref", "#/components/schemas/Meta"}}}}},
          {"required", {"status", "error", "meta"}}};
}

Json Document::Components() {
  std::map<int, std::vector<std::string>> codes;
  for (const ErrorRow& row : ErrorTable()) codes[row.http_status].push_back(row.reason);
  for (const int status : {400, 431}) codes[status] = {"VALIDATION_ERROR"};
  Json responses = Json::object();
  Json errors = Json::object();
  for (const int status : error_statuses_) {
    const std::string name = fmt::format("Error{}", status);
    errors[name] = ErrorSchema(status, codes[status]);
    Json response = {
        {"description", fmt::format("{}", fmt::join(codes[status], ", "))},
        {"content",
         {{"application/json", {{"schema", {{"$ref", "#/components/schemas/" + name}}}}}}}};
    if (status == 429 || status == 503)
      response["headers"] = {{"Retry-After", {{"schema", {{"type", "integer"}}}}}};
    if (status == 401)
      response["headers"] = {{"WWW-Authenticate", {{"schema", {{"type", "string"}}}}}};
    responses[name] = response;
    if (!flat_errors_) continue;
    response["content"] = {
        {"application/json", {{"schema", {{"$ref", "#/components/schemas/FlatError"}}}}}};
    responses[fmt::format("Flat{}", status)] = std::move(response);
  }
  Json schemas = Json::object();
  for (const auto& [name, schema] : schemas_.schemas()) schemas[name] = schema;
  for (auto& [name, schema] : errors.items()) schemas[name] = schema;
  schemas["Meta"] = {
      {"type", "object"},
      {"properties", {{"request_id", {{"type", "string"}, {"pattern", "^req_[0-9a-f]{24}$"}}}}},
      {"required", Json::array({"request_id"})}};
  schemas["FieldViolation"] = {
      {"type", "object"},
      {"properties", {{"field", {{"type", "string"}}}, {"message", {{"type", "string"}}}}},
      {"required", {"field", "message"}}};
  if (flat_errors_) {
    schemas["FlatError"] = {
        {"type", "object"},
        {"properties", {{"error_code", {{"type", "string"}}}, {"error_msg", {{"type", "string"}}}}},
        {"required", {"error_code", "error_msg"}}};
  }
  return {{"securitySchemes",
           {{"key",
             {{"type", "http"},
              {"scheme", "bearer"},
              {"description", "A key: sgk_ and 43 base62 characters."}}}}},
          {"parameters",
           {{"IdempotencyKey",
             {{"name", "Idempotency-Key"},
              {"in", "header"},
              {"required", false},
              {"schema", {{"type", "string"}, {"maxLength", 255}}},
              {"description",
               "A repeat within 24 h gets the first answer; another request under "
               "the same key is an IDEMPOTENCY_CONFLICT."}}},
            {"IfMatch",
             {{"name", "If-Match"},
              {"in", "header"},
              {"required", false},
              {"schema", {{"type", "string"}, {"pattern", "^(\\*|[0-9]{1,9}|\"[0-9]{1,9}\")?$"}}},
              {"description",
               "The incarnation that the caller knows; where the bunker is at another one, the "
               "answer is STALE_INCARNATION."}}}}},
          {"responses", std::move(responses)},
          {"schemas", std::move(schemas)}};
}

}  // namespace

std::string BuildOpenApi(const Router& router, std::string_view version) {
  return Document(router, version).Build().dump(1, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

}  // namespace bunker::controller
