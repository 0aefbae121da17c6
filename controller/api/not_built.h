// Fields and values of the contract that this build does not do yet, found by the descriptors'
// options: what is set is refused, so that nothing is accepted and ignored.
//
// Thread-safe: free functions without state.
#pragma once

#include <string_view>
#include <vector>

#include "controller/api/errors.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// Adds a violation for each. `body_field` is left out of the paths.
void FindNotBuilt(const google::protobuf::Message& message, std::string_view body_field,
                  std::vector<FieldViolation>* violations);

}  // namespace bunker::controller
