// Values that need a permission of their own, found by reflection.
#include <string>

#include <fmt/format.h>

#include "common/base/converters.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "google/protobuf/descriptor.h"

namespace bunker::controller {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

bool FieldIs(const Message& message, const FieldDescriptor* field, std::string_view value) {
  const google::protobuf::Reflection& r = *message.GetReflection();
  if (field->is_repeated()) return false;
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL)
    return r.HasField(message, field) && r.GetBool(message, field) == (value == "true");
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM)
    return ModelEnumName(field->enum_type(), r.GetEnumValue(message, field)) == value;
  return false;
}

// Whether `path` ("a.b.c") has that value anywhere in `message`.
bool Uses(const Message& message, std::string_view path, std::string_view value) {
  const size_t dot = path.find('.');
  const FieldDescriptor* field =
      message.GetDescriptor()->FindFieldByName(std::string(path.substr(0, dot)));
  if (field == nullptr) return false;
  if (dot == std::string_view::npos) return FieldIs(message, field, value);
  const google::protobuf::Reflection& r = *message.GetReflection();
  const std::string_view rest = path.substr(dot + 1);
  if (!field->is_repeated())
    return r.HasField(message, field) && Uses(r.GetMessage(message, field), rest, value);
  for (int i = 0; i < r.FieldSize(message, field); ++i) {
    if (Uses(r.GetRepeatedMessage(message, field, i), rest, value)) return true;
  }
  return false;
}

}  // namespace

absl::Status CheckValues(const MethodRule& rule, const Caller& caller, const Message& request,
                         std::vector<std::string>* notes) {
  for (const ValueRule& value : ValueRules()) {
    if (std::string_view(value.method) != rule.method) continue;
    if (!Uses(request, value.field, value.value)) continue;
    if (value.noted) notes->push_back(value.permission);
    if (HasPermission(caller, value.permission)) continue;
    return ApiError(value.code,
                    fmt::format("{} {} needs the permission {}{}; ask an administrator of your "
                                "tenant for it, or choose another value",
                                value.field, value.value, kPermissionPrefix, value.permission));
  }
  return absl::OkStatus();
}

}  // namespace bunker::controller
