#include "controller/api/not_built.h"

#include <string>

#include <fmt/format.h>

#include "bunker/v1/options.pb.h"
#include "google/protobuf/descriptor.h"

namespace bunker::controller {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kMessage[] = "is not available yet; leave it out";

class Finder {
 public:
  Finder(std::string_view body_field, std::vector<FieldViolation>* violations)
      : body_field_(body_field), violations_(violations) {}

  void Visit(const Message& message, const std::string& path) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const bool is_body = path.empty() && field->name() == body_field_;
      const std::string field_path =
          is_body ? "" : path.empty() ? field->name() : path + "." + field->name();
      if (field->options().GetExtension(v1::not_built)) {
        violations_->push_back({field_path, kMessage});
        continue;
      }
      VisitField(message, field, field_path);
    }
  }

 private:
  void VisitField(const Message& message, const FieldDescriptor* field, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const std::string item = field->is_repeated() ? fmt::format("{}[{}]", path, i) : path;
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
        VisitEnum(field->is_repeated() ? reflection.GetRepeatedEnum(message, field, i)
                                       : reflection.GetEnum(message, field), item);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map()) {
        Visit(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                   : reflection.GetMessage(message, field), item);
      }
    }
  }

  void VisitEnum(const EnumValueDescriptor* value, const std::string& path) {
    // A number without a name came over gRPC from a client with other protos.
    if (value->type()->FindValueByNumber(value->number()) == nullptr) {
      violations_->push_back({path, "is not a value of this field"});
    } else if (value->options().GetExtension(v1::not_built_value)) {
      violations_->push_back({path, "has a value that is not available yet; use another one"});
    }
  }

  const std::string_view body_field_;
  std::vector<FieldViolation>* const violations_;
};

}  // namespace

void FindNotBuilt(const Message& message, std::string_view body_field,
                  std::vector<FieldViolation>* violations) {
  Finder(body_field, violations).Visit(message, "");
}

}  // namespace bunker::controller
