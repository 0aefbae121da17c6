// Messages → JSON.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "absl/time/time.h"
#include "bunker/v1/options.pb.h"
#include "controller/rest/json_codec.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/timestamp.pb.h"

namespace bunker::controller {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::Timestamp;

void AppendDouble(std::string* out, double value) {
  if (!std::isfinite(value)) {
    *out += "null";
  } else {
    fmt::format_to(std::back_inserter(*out), "{}", value);
  }
}

void AppendEnum(std::string* out, const google::protobuf::EnumValueDescriptor* value) {
  const std::string name = EnumJsonName(value);
  if (name.empty()) {
    *out += "null";
  } else {
    AppendJsonString(out, name);
  }
}

void AppendTimestamp(std::string* out, const Message& message) {
  const auto* time = google::protobuf::DynamicCastToGenerated<Timestamp>(&message);
  const absl::Time at = absl::FromUnixSeconds(time->seconds()) + absl::Nanoseconds(time->nanos());
  AppendJsonString(out, absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", at, absl::UTCTimeZone()));
}

// Whether absent fields are written as null, or left out.
enum class Absent { kNull, kLeftOut };

void AppendObject(std::string* out, const Message& message, Absent absent);
void AppendField(std::string* out, const Message& message, const FieldDescriptor* field,
                 Absent absent);

// A line, or a list of words.
void AppendCommand(std::string* out, const Message& message) {
  const Reflection& r = *message.GetReflection();
  const std::string line =
      r.GetString(message, message.GetDescriptor()->FindFieldByName("shell"));
  if (!line.empty()) return AppendJsonString(out, line);
  AppendField(out, message, message.GetDescriptor()->FindFieldByName("argv"), Absent::kNull);
}

void AppendAnyMessage(std::string* out, const Message& message, Absent absent) {
  if (message.GetDescriptor()->full_name() == "google.protobuf.Timestamp") {
    AppendTimestamp(out, message);
  } else if (message.GetDescriptor()->full_name() == "bunker.v1.Command") {
    AppendCommand(out, message);
  } else {
    AppendObject(out, message, absent);
  }
}

// A single value; `index` < 0: the field is not repeated.
void AppendValue(std::string* out, const Message& message, const FieldDescriptor* field, int index,
                 Absent absent) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  const auto put = [out](auto number) { fmt::format_to(std::back_inserter(*out), "{}", number); };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      AppendJsonString(out, one ? r.GetStringReference(message, field, &scratch)
                                : r.GetRepeatedStringReference(message, field, index, &scratch));
      break;
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      *out += (one ? r.GetBool(message, field) : r.GetRepeatedBool(message, field, index))
                  ? "true" : "false";
      break;
    case FieldDescriptor::CPPTYPE_INT32:
      put(one ? r.GetInt32(message, field) : r.GetRepeatedInt32(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      put(one ? r.GetUInt32(message, field) : r.GetRepeatedUInt32(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      put(one ? r.GetInt64(message, field) : r.GetRepeatedInt64(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      put(one ? r.GetUInt64(message, field) : r.GetRepeatedUInt64(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      AppendDouble(out, one ? r.GetDouble(message, field)
                            : r.GetRepeatedDouble(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_FLOAT:
      AppendDouble(out, one ? r.GetFloat(message, field)
                            : r.GetRepeatedFloat(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_ENUM:
      AppendEnum(out, one ? r.GetEnum(message, field) : r.GetRepeatedEnum(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      AppendAnyMessage(
          out, one ? r.GetMessage(message, field) : r.GetRepeatedMessage(message, field, index),
          absent);
      break;
  }
}

// Keys in order, so that the same row is always the same bytes.
void AppendMap(std::string* out, const Message& message, const FieldDescriptor* field,
               Absent absent) {
  const Reflection& r = *message.GetReflection();
  std::map<std::string, const Message*> entries;
  for (int i = 0; i < r.FieldSize(message, field); ++i) {
    const Message& entry = r.GetRepeatedMessage(message, field, i);
    entries[entry.GetReflection()->GetString(entry, field->message_type()->map_key())] = &entry;
  }
  *out += '{';
  bool first = true;
  for (const auto& [key, entry] : entries) {
    if (!first) *out += ',';
    first = false;
    AppendJsonString(out, key);
    *out += ':';
    AppendValue(out, *entry, field->message_type()->map_value(), -1, absent);
  }
  *out += '}';
}

bool IsAbsent(const Message& message, const FieldDescriptor* field) {
  if (field->is_repeated()) return false;
  const Reflection& r = *message.GetReflection();
  if (field->has_presence()) return !r.HasField(message, field);
  return field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM && r.GetEnumValue(message, field) == 0;
}

void AppendField(std::string* out, const Message& message, const FieldDescriptor* field,
                 Absent absent) {
  const Reflection& r = *message.GetReflection();
  if (field->is_map()) return AppendMap(out, message, field, absent);
  if (field->is_repeated()) {
    *out += '[';
    for (int i = 0; i < r.FieldSize(message, field); ++i) {
      if (i > 0) *out += ',';
      AppendValue(out, message, field, i, absent);
    }
    *out += ']';
    return;
  }
  if (IsAbsent(message, field)) {
    *out += "null";
    return;
  }
  AppendValue(out, message, field, -1, absent);
}

// The field that is the message's JSON already, or null.
const FieldDescriptor* JsonDocumentOf(const google::protobuf::Descriptor* descriptor) {
  if (descriptor->field_count() != 1) return nullptr;
  const FieldDescriptor* field = descriptor->field(0);
  return field->options().GetExtension(v1::json_document) ? field : nullptr;
}

void AppendObject(std::string* out, const Message& message, Absent absent) {
  const auto* descriptor = message.GetDescriptor();
  if (const FieldDescriptor* document = JsonDocumentOf(descriptor)) {
    *out += message.GetReflection()->GetString(message, document);
    return;
  }
  *out += '{';
  bool first = true;
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (absent == Absent::kLeftOut && IsAbsent(message, field)) continue;
    if (!std::exchange(first, false)) *out += ',';
    AppendJsonString(out, field->name());
    *out += ':';
    AppendField(out, message, field, absent);
  }
  *out += '}';
}

}  // namespace

void AppendFieldJson(std::string* out, const Message& message, const FieldDescriptor* field) {
  AppendField(out, message, field, Absent::kNull);
}

void AppendMessageJson(std::string* out, const Message& message) {
  AppendObject(out, message, Absent::kNull);
}

void AppendPresentJson(std::string* out, const Message& message) {
  AppendObject(out, message, Absent::kLeftOut);
}

}  // namespace bunker::controller
