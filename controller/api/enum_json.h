// How JSON spells the values of the API's enums.
//
// Thread-safe: a free function without state.
#pragma once

#include <string>

#include "google/protobuf/descriptor.h"

namespace bunker::controller {

// Lower case without the enum's prefix, upper case where the enum says so; "" for the unspecified
// value.
std::string EnumJsonName(const google::protobuf::EnumValueDescriptor* value);

}  // namespace bunker::controller
