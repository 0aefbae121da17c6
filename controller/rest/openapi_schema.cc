#include "controller/rest/openapi_schema.h"

#include <utility>

#include "bunker/v1/options.pb.h"
#include "common/base/log.h"
#include "controller/api/enum_json.h"
#include "google/protobuf/descriptor.pb.h"
#include "nlohmann/json.hpp"

extern const unsigned char bunker_api_comments[];
extern const unsigned long bunker_api_comments_size;

namespace bunker::controller {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using Json = nlohmann::ordered_json;

constexpr char kRefPrefix[] = "#/components/schemas/";
constexpr char kNamePattern[] = "[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?";

// Lines and runs of spaces → single spaces.
std::string Joined(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\t';
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

template <typename D>
std::string CommentAt(const D* descriptor) {
  google::protobuf::SourceLocation location;
  if (descriptor == nullptr || !descriptor->GetSourceLocation(&location)) return "";
  return Joined(location.leading_comments + " " + location.trailing_comments);
}

// "bunker.v1.MainSpec.Restart" → "MainSpecRestart".
std::string SchemaName(const std::string& full_name) {
  constexpr std::string_view kPackage = "bunker.v1.";
  std::string name = full_name;
  if (name.rfind(kPackage, 0) == 0) name.erase(0, kPackage.size());
  std::string out;
  for (const char c : name) {
    if (c != '.') out += c;
  }
  return out;
}

Json OrNull(Json schema) {
  const auto type = schema.find("type");
  if (type == schema.end()) return {{"anyOf", {std::move(schema), {{"type", "null"}}}}};
  if (type->is_string()) *type = {*type, "null"};
  if (const auto values = schema.find("enum"); values != schema.end()) values->push_back(nullptr);
  return schema;
}

void AddTextRules(const v1::FieldRules& rules, bool may_be_empty, Json* schema) {
  if (rules.form() == v1::FieldRules::FORM_NAME) {
    const std::string name = kNamePattern;
    (*schema)["pattern"] = may_be_empty ? "^(" + name + ")?$" : "^" + name + "$";
    (*schema)["maxLength"] = 128;
    return;
  }
  if (!may_be_empty) (*schema)["minLength"] = 1;
  if (rules.has_max_length()) (*schema)["maxLength"] = rules.max_length();
}

void Describe(const std::string& comment, Json* schema) {
  if (comment.empty()) return;
  (*schema)["description"] = comment;  // beside a $ref, too: JSON Schema 2020-12
}

}  // namespace

ApiComments::ApiComments() : pool_(std::make_unique<google::protobuf::DescriptorPool>()) {
  google::protobuf::FileDescriptorSet files;
  BUNKER_CHECK(
      files.ParseFromArray(bunker_api_comments, static_cast<int>(bunker_api_comments_size)));
  for (const auto& file : files.file()) BUNKER_CHECK(pool_->BuildFile(file) != nullptr);
}

ApiComments::~ApiComments() = default;

std::string ApiComments::Of(const Descriptor* message) const {
  return CommentAt(pool_->FindMessageTypeByName(message->full_name()));
}
std::string ApiComments::Of(const FieldDescriptor* field) const {
  return CommentAt(pool_->FindFieldByName(field->full_name()));
}
std::string ApiComments::Of(const EnumDescriptor* type) const {
  return CommentAt(pool_->FindEnumTypeByName(type->full_name()));
}
std::string ApiComments::Of(const MethodDescriptor* method) const {
  return CommentAt(pool_->FindMethodByName(method->full_name()));
}
std::string ApiComments::Of(const ServiceDescriptor* service) const {
  return CommentAt(pool_->FindServiceByName(service->full_name()));
}

SchemaBuilder::SchemaBuilder() : schemas_(std::make_unique<std::map<std::string, Json>>()) {}

SchemaBuilder::~SchemaBuilder() = default;

const std::map<std::string, Json>& SchemaBuilder::schemas() const {
  return *schemas_;
}

bool SchemaBuilder::IsRequired(const FieldDescriptor* field) {
  return field->options().GetExtension(v1::rules).required();
}

bool SchemaBuilder::IsBuilt(const FieldDescriptor* field) {
  // A mask is made of the body's members: REST has no field for it.
  const bool is_mask = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
                       field->message_type()->full_name() == "google.protobuf.FieldMask";
  return !is_mask && !field->options().GetExtension(v1::not_built);
}

Json SchemaBuilder::EnumRef(const EnumDescriptor* type) {
  const std::string name = SchemaName(type->full_name());
  if (schemas_->count(name) == 0) {
    Json values = Json::array();
    for (int i = 0; i < type->value_count(); ++i) {
      const auto* value = type->value(i);
      if (value->number() == 0 || value->options().GetExtension(v1::not_built_value)) continue;
      values.push_back(EnumJsonName(value));
    }
    Json schema = {{"type", "string"}, {"enum", std::move(values)}};
    Describe(comments_.Of(type), &schema);
    (*schemas_)[name] = std::move(schema);
  }
  return {{"$ref", kRefPrefix + name}};
}

Json SchemaBuilder::MessageValue(const FieldDescriptor* field, Side side) {
  const std::string& type = field->message_type()->full_name();
  if (type == "google.protobuf.Timestamp") return {{"type", "string"}, {"format", "date-time"}};
  if (type == "bunker.v1.Command") {
    const Json line = {{"type", "string"}, {"minLength", 1}};
    const Json list = {{"type", "array"}, {"items", {{"type", "string"}}}, {"minItems", 1}};
    return {{"oneOf", {line, list}}};
  }
  return Ref(field->message_type(), side);
}

Json SchemaBuilder::Scalar(const FieldDescriptor* field, Side side) {
  const v1::FieldRules& rules = field->options().GetExtension(v1::rules);
  const bool request = side == Side::kRequest;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING: {
      Json schema = {{"type", "string"}};
      if (request) AddTextRules(rules, !rules.required() || field->is_repeated(), &schema);
      if (field->options().GetExtension(v1::secret)) {
        schema["format"] = "password";
        schema["writeOnly"] = true;
      }
      return schema;
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return {{"type", "boolean"}};
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumRef(field->enum_type());
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64: {
      const bool narrow = field->cpp_type() == FieldDescriptor::CPPTYPE_UINT32;
      Json schema = {{"type", "integer"}, {"format", "int64"}, {"minimum", 0}};
      if (narrow) schema["maximum"] = UINT32_MAX;
      if (request && rules.has_min()) schema["minimum"] = rules.min();
      if (request && rules.has_max()) schema["maximum"] = rules.max();
      if (request && !narrow && !rules.has_max()) schema["maximum"] = UINT64_MAX;
      return schema;
    }
    case FieldDescriptor::CPPTYPE_INT32:
      return {{"type", "integer"}, {"format", "int32"}};
    case FieldDescriptor::CPPTYPE_INT64:
      return {{"type", "integer"}, {"format", "int64"}};
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return {{"type", "number"}, {"format", "double"}};
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MessageValue(field, side);
  }
  return Json::object();
}

Json SchemaBuilder::Value(const FieldDescriptor* field, Side side) {
  const v1::FieldRules& rules = field->options().GetExtension(v1::rules);
  if (!field->is_repeated()) return Scalar(field, side);
  const bool request = side == Side::kRequest;
  Json schema;
  if (field->is_map()) {
    Json value = Scalar(field->message_type()->map_value(), side);
    if (request && rules.has_max_length()) value["maxLength"] = rules.max_length();
    schema = {{"type", "object"}, {"additionalProperties", std::move(value)}};
    if (request && rules.has_max_items()) schema["maxProperties"] = rules.max_items();
    if (request && rules.required()) schema["minProperties"] = 1;
  } else {
    schema = {{"type", "array"}, {"items", Scalar(field, side)}};
    if (request && rules.has_max_items()) schema["maxItems"] = rules.max_items();
    if (request && rules.required()) schema["minItems"] = 1;
  }
  return schema;
}

Json SchemaBuilder::Property(const FieldDescriptor* field, Side side) {
  Json schema = Value(field, side);
  // In an answer an unspecified enum is null; in a request null says that a field is absent.
  const bool single_enum =
      field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM && !field->is_repeated();
  const bool null_refused =
      IsRequired(field) || field->options().GetExtension(v1::rules).not_null();
  const bool nullable = side == Side::kRequest  ? !null_refused
                        : side == Side::kAnswer ? field->has_presence() || single_enum
                                                : false;
  if (nullable) schema = OrNull(std::move(schema));
  Describe(comments_.Of(field), &schema);
  return schema;
}

Json SchemaBuilder::Object(const Descriptor* message, Side side, const std::set<std::string>& but) {
  // A document of another standard's: it is described there.
  if (message->field_count() == 1 && message->field(0)->options().GetExtension(v1::json_document)) {
    return {{"type", "object"}};
  }
  Json properties = Json::object();
  Json required = Json::array();
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    if (but.count(field->name()) > 0) continue;
    if (side == Side::kRequest && !IsBuilt(field)) continue;
    properties[field->name()] = Property(field, side);
    const bool single_enum =
        field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM && !field->is_repeated();
    const bool always = side == Side::kAnswer ||
                        (side == Side::kFlat && !field->has_presence() && !single_enum) ||
                        (side == Side::kRequest && IsRequired(field));
    if (always) required.push_back(field->name());
  }
  Json schema = {{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  if (side == Side::kRequest) schema["additionalProperties"] = false;
  Describe(comments_.Of(message), &schema);
  return schema;
}

Json SchemaBuilder::Ref(const Descriptor* message, Side side) {
  std::string name = SchemaName(message->full_name());
  constexpr std::string_view kRequest = "Request";
  const bool named_request =
      name.size() > kRequest.size() &&
      name.compare(name.size() - kRequest.size(), kRequest.size(), kRequest) == 0;
  if (side == Side::kRequest && !named_request) name += "Input";
  if (schemas_->count(name) == 0) {
    (*schemas_)[name] = Json::object();  // where it holds itself, it is there already
    Json made = Object(message, side, {});
    (*schemas_)[name] = std::move(made);
  }
  return {{"$ref", kRefPrefix + name}};
}

Json SchemaBuilder::BodyRef(const Descriptor* request, const std::set<std::string>& but) {
  const std::string name = SchemaName(request->full_name());
  if (schemas_->count(name) == 0) {
    Json made = Object(request, Side::kRequest, but);
    (*schemas_)[name] = std::move(made);
  }
  return {{"$ref", kRefPrefix + name}};
}

}  // namespace bunker::controller
