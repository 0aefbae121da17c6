// The bounds that the descriptors give to the fields of a request (bunker.v1.rules), held against
// a message. The OpenAPI document is made of the same options.
//
// Thread-safe: free functions without state.
#pragma once

#include <string_view>
#include <vector>

#include "controller/api/errors.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// Adds a violation for each field that breaks its rule, at most 20 in all. `body_field` is left
// out of the paths.
void FindRuleViolations(const google::protobuf::Message& message, std::string_view body_field,
                        std::vector<FieldViolation>* violations);

}  // namespace bunker::controller
