// Descriptors → JSON Schema (2020-12, as OpenAPI 3.1 has it), by the same rules by which the codec
// reads and writes: names as declared, enums as on the wire, absent fields null, unknown ones
// refused in requests.
//
// Not thread-safe: one document, one builder.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "google/protobuf/descriptor.h"
#include "nlohmann/json_fwd.hpp"

namespace bunker::controller {

// The comments of the .proto files, by the full names of what they stand at.
class ApiComments {
 public:
  ApiComments();
  ~ApiComments();
  // "" where there is none.
  std::string Of(const google::protobuf::Descriptor* message) const;
  std::string Of(const google::protobuf::FieldDescriptor* field) const;
  std::string Of(const google::protobuf::EnumDescriptor* type) const;
  std::string Of(const google::protobuf::MethodDescriptor* method) const;
  std::string Of(const google::protobuf::ServiceDescriptor* service) const;

 private:
  std::unique_ptr<google::protobuf::DescriptorPool> pool_;
};

class SchemaBuilder {
 public:
  using Json = nlohmann::ordered_json;

  // A message is another thing in a request (bounds, what is required, nothing unknown, nothing
  // that is not built) than in an answer (every field there). kFlat: an answer without what is
  // absent.
  enum class Side { kRequest, kAnswer, kFlat };

  SchemaBuilder();
  ~SchemaBuilder();

  // {"$ref"} to the message's schema, which is made at its first use.
  Json Ref(const google::protobuf::Descriptor* message, Side side);
  // The request's fields without those in `but` (the path's), as a schema of that name.
  Json BodyRef(const google::protobuf::Descriptor* request, const std::set<std::string>& but);
  // Of one value, never null: a parameter, an item.
  Json Value(const google::protobuf::FieldDescriptor* field, Side side);
  // Of the field as a property.
  Json Property(const google::protobuf::FieldDescriptor* field, Side side);

  // All that was made, by name.
  const std::map<std::string, Json>& schemas() const;
  const ApiComments& comments() const { return comments_; }

  static bool IsRequired(const google::protobuf::FieldDescriptor* field);
  static bool IsBuilt(const google::protobuf::FieldDescriptor* field);

 private:
  Json Object(const google::protobuf::Descriptor* message, Side side,
              const std::set<std::string>& but);
  Json Scalar(const google::protobuf::FieldDescriptor* field, Side side);
  Json EnumRef(const google::protobuf::EnumDescriptor* type);
  Json MessageValue(const google::protobuf::FieldDescriptor* field, Side side);

  const ApiComments comments_;
  std::unique_ptr<std::map<std::string, Json>> schemas_;
};

}  // namespace bunker::controller
