#include "controller/api/field_rules.h"

#include <string>

#include <fmt/format.h>

#include "bunker/v1/options.pb.h"
#include "controller/api/enum_json.h"
#include "controller/api/validate.h"
#include "google/protobuf/descriptor.h"

namespace bunker::controller {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

class RuleChecker {
 public:
  RuleChecker(std::string_view body_field, Validator* validator)
      : body_field_(body_field), validator_(validator) {}

  void Visit(const Message& message, const std::string& path) {
    const auto* descriptor = message.GetDescriptor();
    for (int i = 0; i < descriptor->field_count(); ++i) {
      const FieldDescriptor* field = descriptor->field(i);
      const bool is_body = path.empty() && field->name() == body_field_;
      const std::string field_path = is_body        ? ""
                                     : path.empty() ? field->name()
                                                    : path + "." + field->name();
      const v1::FieldRules& rules = field->options().GetExtension(v1::rules);
      if (field->is_map()) {
        CheckMap(message, field, rules, field_path);
      } else if (field->is_repeated()) {
        CheckList(message, field, rules, field_path);
      } else {
        CheckSingle(message, field, rules, field_path);
      }
    }
  }

 private:
  void CheckCount(size_t count, const v1::FieldRules& rules, const std::string& path) {
    if (rules.required() && count == 0) validator_->Refuse(path, "is required");
    if (rules.has_max_items() && count > rules.max_items()) {
      validator_->Refuse(path,
                         fmt::format("holds more than {} entries; send fewer", rules.max_items()));
    }
  }

  void CheckMap(const Message& message, const FieldDescriptor* field, const v1::FieldRules& rules,
                const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    const int count = reflection.FieldSize(message, field);
    CheckCount(static_cast<size_t>(count), rules, path);
    const FieldDescriptor* key = field->message_type()->map_key();
    const FieldDescriptor* value = field->message_type()->map_value();
    if (!rules.has_max_length() || value->cpp_type() != FieldDescriptor::CPPTYPE_STRING) return;
    for (int i = 0; i < count; ++i) {
      const Message& entry = reflection.GetRepeatedMessage(message, field, i);
      const Reflection& r = *entry.GetReflection();
      validator_->Text(fmt::format("{}.{}", path, r.GetString(entry, key).substr(0, 64)),
                       r.GetString(entry, value), rules.max_length());
    }
  }

  void CheckList(const Message& message, const FieldDescriptor* field, const v1::FieldRules& rules,
                 const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    const int count = reflection.FieldSize(message, field);
    CheckCount(static_cast<size_t>(count), rules, path);
    for (int i = 0; i < count; ++i) {
      const std::string item = fmt::format("{}[{}]", path, i);
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        Visit(reflection.GetRepeatedMessage(message, field, i), item);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        CheckText(reflection.GetRepeatedString(message, field, i), rules, item);
      }
    }
  }

  void CheckText(const std::string& text, const v1::FieldRules& rules, const std::string& path) {
    if (rules.form() == v1::FieldRules::FORM_NAME) validator_->Name(path, text);
    if (rules.has_max_length()) validator_->Text(path, text, rules.max_length());
  }

  void CheckNumber(uint64_t value, const v1::FieldRules& rules, const std::string& path) {
    if (rules.has_max()) return validator_->Range(path, value, rules.min(), rules.max());
    if (value < rules.min())
      validator_->Refuse(path, fmt::format("must be at least {}, not {}", rules.min(), value));
  }

  void CheckSingle(const Message& message, const FieldDescriptor* field,
                   const v1::FieldRules& rules, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    const bool present = reflection.HasField(message, field);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!present && !rules.required()) return;
      const size_t before = validator_->count();
      Visit(reflection.GetMessage(message, field), path);
      // Of an absent one, what it would have to hold says more than its own name.
      if (!present && validator_->count() == before) validator_->Refuse(path, "is required");
      return;
    }
    const bool numeric = field->cpp_type() == FieldDescriptor::CPPTYPE_UINT32 ||
                         field->cpp_type() == FieldDescriptor::CPPTYPE_UINT64;
    if (!present && rules.required() && (!numeric || field->has_presence()))
      return validator_->Refuse(path, RequiredMessage(field));
    if (!present && !(numeric && rules.required())) return;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      CheckText(reflection.GetString(message, field), rules, path);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
      CheckNumber(reflection.GetUInt32(message, field), rules, path);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
      CheckNumber(reflection.GetUInt64(message, field), rules, path);
    }
  }

  static std::string RequiredMessage(const FieldDescriptor* field) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_ENUM) return "is required";
    std::string known;
    for (int i = 1; i < field->enum_type()->value_count(); ++i) {
      const auto* value = field->enum_type()->value(i);
      if (value->options().GetExtension(v1::not_built_value)) continue;
      known += (known.empty() ? "" : ", ") + EnumJsonName(value);
    }
    return fmt::format("is required; it takes {}", known);
  }

  const std::string_view body_field_;
  Validator* const validator_;
};

}  // namespace

void FindRuleViolations(const Message& message, std::string_view body_field,
                        std::vector<FieldViolation>* violations) {
  Validator validator;
  RuleChecker(body_field, &validator).Visit(message, "");
  for (const FieldViolation& violation : validator.violations()) {
    if (violations->size() < 20) violations->push_back(violation);
  }
}

}  // namespace bunker::controller
