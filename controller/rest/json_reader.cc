// JSON (and query text) → messages.
#include <cstdint>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "common/base/converters.h"
#include "common/base/utf8.h"
#include "controller/rest/json_codec.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/field_mask.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace bunker::controller {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::Timestamp;
using Kind = JsonValue::Kind;

constexpr size_t kMaxViolations = 20;

std::string Folded(std::string_view name) {
  std::string folded;
  for (const char c : name) {
    if (c == '_' || c == '-') continue;
    folded += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return folded;
}

class Reader {
 public:
  explicit Reader(std::vector<FieldViolation>* violations) : violations_(violations) {}

  void ReadObject(const JsonValue& json, const std::string& path,
                  const std::set<std::string>& reserved, Message* message) {
    // A PATCH: null and empty are told from absent by the mask, which is never sent itself.
    const FieldDescriptor* mask = message->GetDescriptor()->FindFieldByName("update_mask");
    for (const auto& [key, value] : json.members) {
      const std::string field_path = path.empty() ? key : path + "." + key;
      const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(key);
      if (field == nullptr || field == mask || reserved.count(key) > 0) {
        Refuse(field_path, UnknownMessage(message, key, reserved));
        continue;
      }
      if (mask != nullptr) AddToMask(key, mask, message);
      if (value.kind == Kind::kNull) continue;
      if (field->is_map()) {
        ReadMap(value, field_path, field, message);
      } else if (field->is_repeated()) {
        ReadList(value, field_path, field, message);
      } else {
        ReadSingle(value, field_path, field, message);
      }
    }
  }

  // One scalar from text, as a query parameter holds it.
  void ReadText(std::string_view text, const std::string& path, const FieldDescriptor* field,
                Message* message) {
    JsonValue value;
    value.text = std::string(text);
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
      case FieldDescriptor::CPPTYPE_ENUM: value.kind = Kind::kString; break;
      case FieldDescriptor::CPPTYPE_BOOL:
        if (text != "true" && text != "false") return Refuse(path, "must be true or false");
        value.kind = Kind::kBool;
        value.boolean = text == "true";
        break;
      default: value.kind = Kind::kNumber; break;
    }
    if (value.kind == Kind::kString && !IsUtf8(text)) return Refuse(path, "is not valid UTF-8");
    ReadSingle(value, path, field, message);
  }

  void Refuse(const std::string& path, std::string message) {
    if (violations_->size() < kMaxViolations) violations_->push_back({path, std::move(message)});
  }

 private:
  static void AddToMask(const std::string& key, const FieldDescriptor* mask, Message* message) {
    Message* paths = message->GetReflection()->MutableMessage(message, mask);
    google::protobuf::DynamicCastToGenerated<google::protobuf::FieldMask>(paths)->add_paths(key);
  }

  static std::string UnknownMessage(const Message* message, const std::string& key,
                                    const std::set<std::string>& reserved) {
    for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
      const std::string& known = message->GetDescriptor()->field(i)->name();
      if (reserved.count(known) == 0 && known != "update_mask" && Folded(known) == Folded(key))
        return fmt::format("is no field here; it is spelled {}", known);
    }
    const std::string& hint = message->GetDescriptor()->options().GetExtension(v1::other_fields);
    return hint.empty() ? "is no field here; remove it" : hint;
  }

  bool Expect(const JsonValue& json, Kind kind, const std::string& path) {
    if (json.kind == kind) return true;
    const bool quoted = kind == Kind::kNumber && json.kind == Kind::kString;
    Refuse(path, fmt::format("must be {}, not {}{}", JsonKindName(kind), JsonKindName(json.kind),
                             quoted ? "; write it without quotes" : ""));
    return false;
  }

  void ReadMap(const JsonValue& json, const std::string& path, const FieldDescriptor* field,
               Message* message) {
    if (!Expect(json, Kind::kObject, path)) return;
    for (const auto& [key, value] : json.members) {
      Message* entry = message->GetReflection()->AddMessage(message, field);
      entry->GetReflection()->SetString(entry, field->message_type()->map_key(), key);
      if (value.kind == Kind::kNull) {
        Refuse(path + "." + key, "must not be null; leave the key out");
        continue;
      }
      ReadSingle(value, path + "." + key, field->message_type()->map_value(), entry);
    }
  }

  void ReadList(const JsonValue& json, const std::string& path, const FieldDescriptor* field,
                Message* message) {
    if (!Expect(json, Kind::kArray, path)) return;
    const Reflection* reflection = message->GetReflection();
    for (size_t i = 0; i < json.items.size(); ++i) {
      const JsonValue& item = json.items[i];
      const std::string item_path = fmt::format("{}[{}]", path, i);
      switch (field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_STRING:
          if (Expect(item, Kind::kString, item_path))
            reflection->AddString(message, field, item.text);
          break;
        case FieldDescriptor::CPPTYPE_ENUM:
          if (const EnumValueDescriptor* value = ReadEnum(item, item_path, field->enum_type()))
            reflection->AddEnum(message, field, value);
          break;
        case FieldDescriptor::CPPTYPE_MESSAGE:
          ReadMessage(item, item_path, reflection->AddMessage(message, field));
          break;
        default: Refuse(item_path, "has a type that requests do not hold"); break;
      }
    }
  }

  void ReadSingle(const JsonValue& json, const std::string& path, const FieldDescriptor* field,
                  Message* message) {
    const Reflection* reflection = message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        if (Expect(json, Kind::kString, path)) reflection->SetString(message, field, json.text);
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        if (Expect(json, Kind::kBool, path)) reflection->SetBool(message, field, json.boolean);
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        if (const EnumValueDescriptor* value = ReadEnum(json, path, field->enum_type()))
          reflection->SetEnum(message, field, value);
        break;
      case FieldDescriptor::CPPTYPE_UINT32: {
        uint64_t value = 0;
        if (ReadUint(json, path, UINT32_MAX, &value))
          reflection->SetUInt32(message, field, static_cast<uint32_t>(value));
        break;
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        uint64_t value = 0;
        if (ReadUint(json, path, UINT64_MAX, &value)) reflection->SetUInt64(message, field, value);
        break;
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        ReadMessage(json, path, reflection->MutableMessage(message, field));
        break;
      default: Refuse(path, "has a type that requests do not hold"); break;
    }
  }

  bool ReadUint(const JsonValue& json, const std::string& path, uint64_t max, uint64_t* value) {
    if (!Expect(json, Kind::kNumber, path)) return false;
    bool digits = !json.text.empty() && json.text.size() <= 20;
    for (const char c : json.text) digits = digits && c >= '0' && c <= '9';
    if (digits && absl::SimpleAtoi(json.text, value) && *value <= max) return true;
    Refuse(path, fmt::format("must be a whole number from 0 to {}, not {}", max,
                             json.text.substr(0, 40)));
    return false;
  }

  const EnumValueDescriptor* ReadEnum(const JsonValue& json, const std::string& path,
                                      const EnumDescriptor* type) {
    if (!Expect(json, Kind::kString, path)) return nullptr;
    std::string known;
    for (int i = 1; i < type->value_count(); ++i) {
      const std::string name = EnumJsonName(type->value(i));
      if (json.text == name) return type->value(i);
      known += (known.empty() ? "" : ", ") + name;
    }
    Refuse(path, fmt::format("is not a value of this field; it takes {}", known));
    return nullptr;
  }

  void ReadMessage(const JsonValue& json, const std::string& path, Message* message) {
    const std::string& type = message->GetDescriptor()->full_name();
    if (type == "bunker.v1.Command") return ReadCommand(json, path, message);
    if (type == "google.protobuf.Timestamp") return ReadTime(json, path, message);
    if (Expect(json, Kind::kObject, path)) ReadObject(json, path, {}, message);
  }

  void ReadCommand(const JsonValue& json, const std::string& path, Message* message) {
    const auto* descriptor = message->GetDescriptor();
    if (json.kind == Kind::kString) {
      message->GetReflection()->SetString(message, descriptor->FindFieldByName("shell"), json.text);
    } else if (json.kind == Kind::kArray) {
      ReadList(json, path, descriptor->FindFieldByName("argv"), message);
    } else {
      Refuse(path, fmt::format("must be a string or a list of strings, not {}",
                               JsonKindName(json.kind)));
    }
  }

  void ReadTime(const JsonValue& json, const std::string& path, Message* message) {
    if (!Expect(json, Kind::kString, path)) return;
    absl::Time time;
    std::string error;
    // absl also reads "infinite-future".
    if (!absl::ParseTime(absl::RFC3339_full, json.text, &time, &error) ||
        time == absl::InfiniteFuture() || time == absl::InfinitePast())
      return Refuse(path, "must be a time such as 2026-01-31T12:00:00Z (RFC 3339)");
    auto* timestamp = google::protobuf::DynamicCastToGenerated<Timestamp>(message);
    timestamp->set_seconds(absl::ToUnixSeconds(time));
    timestamp->set_nanos(static_cast<int32_t>((absl::ToUnixNanos(time) % 1'000'000'000 +
                                               1'000'000'000) % 1'000'000'000));
  }

  std::vector<FieldViolation>* const violations_;
};

}  // namespace

void JsonToMessage(const JsonValue& json, const std::set<std::string>& reserved, Message* message,
                   std::vector<FieldViolation>* violations) {
  Reader reader(violations);
  if (json.kind != Kind::kObject)
    return reader.Refuse("", fmt::format("the body must be a JSON object, not {}",
                                         JsonKindName(json.kind)));
  // Tells what was sent as null or empty from what was not sent.
  const FieldDescriptor* mask = message->GetDescriptor()->FindFieldByName("update_mask");
  if (mask == nullptr) return reader.ReadObject(json, "", reserved, message);
  std::set<std::string> not_json = reserved;
  not_json.insert(mask->name());
  reader.ReadObject(json, "", not_json, message);
  auto* paths = google::protobuf::DynamicCastToGenerated<google::protobuf::FieldMask>(
      message->GetReflection()->MutableMessage(message, mask));
  for (const auto& [key, value] : json.members) {
    if (message->GetDescriptor()->FindFieldByName(key) != nullptr) paths->add_paths(key);
  }
}

void SetFieldFromText(std::string_view name, std::string_view text, Message* message,
                      std::vector<FieldViolation>* violations) {
  Reader reader(violations);
  const std::string path(name);
  const size_t dot = name.find('.');
  const std::string field_name(name.substr(0, dot));
  const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(field_name);
  const bool wants_key = field != nullptr && field->is_map();
  if (field == nullptr || wants_key != (dot != std::string_view::npos) ||
      (!wants_key && (field->is_repeated() ||
                      field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)))
    return reader.Refuse(path, "is no parameter of this route; remove it");
  if (!wants_key) return reader.ReadText(text, path, field, message);
  const std::string_view key = name.substr(dot + 1);
  if (key.empty() || !IsUtf8(key)) return reader.Refuse(path, "needs a key after the dot");
  Message* entry = message->GetReflection()->AddMessage(message, field);
  entry->GetReflection()->SetString(entry, field->message_type()->map_key(), std::string(key));
  reader.ReadText(text, path, field->message_type()->map_value(), entry);
}

}  // namespace bunker::controller
