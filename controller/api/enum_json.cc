#include "controller/api/enum_json.h"

#include <string_view>

#include "bunker/v1/options.pb.h"

namespace bunker::controller {

std::string EnumJsonName(const google::protobuf::EnumValueDescriptor* value) {
  const std::string& first = value->type()->value(0)->name();  // PREFIX_UNSPECIFIED
  constexpr std::string_view kSuffix = "UNSPECIFIED";
  if (value->number() == 0) return "";
  std::string name = value->name().substr(first.size() - kSuffix.size());
  if (value->type()->options().GetExtension(v1::upper_case)) return name;
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return name;
}

}  // namespace bunker::controller
