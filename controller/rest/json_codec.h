// JSON ↔ protobuf messages, by the descriptors and by the contract's rules rather than
// protobuf's own: names are spelled as declared, 64-bit integers are numbers, enums are
// lower-case words (upper-case where the enum says so), zero and empty values are present and
// absent ones null, times are RFC 3339; bunker.v1.Command is a string or a list of strings.
//
// Thread-safe: free functions without state.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controller/api/enum_json.h"
#include "controller/api/errors.h"
#include "controller/rest/json_value.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// Fills `message` from an object; null counts as absent. Everything that does not fit is added
// to `violations` (at most 20), by path. Fields named in `reserved` come from elsewhere (the
// path of the URL) and count as unknown at the top level. A google.protobuf.FieldMask `update_mask`
// is no field of the JSON: it is made of the members that were sent.
void JsonToMessage(const JsonValue& json, const std::set<std::string>& reserved,
                   google::protobuf::Message* message, std::vector<FieldViolation>* violations);

// Sets one field from the text of a query or path parameter. `name` may be "map.key". What does
// not fit goes to `violations`.
void SetFieldFromText(std::string_view name, std::string_view text,
                      google::protobuf::Message* message, std::vector<FieldViolation>* violations);

// Appends the message as one JSON object.
void AppendMessageJson(std::string* out, const google::protobuf::Message& message);

// The same without the fields that are absent, at every level.
void AppendPresentJson(std::string* out, const google::protobuf::Message& message);

// Appends field `field` of `message` (the whole list where it is repeated).
void AppendFieldJson(std::string* out, const google::protobuf::Message& message,
                     const google::protobuf::FieldDescriptor* field);

}  // namespace bunker::controller
