// The OpenAPI document of the REST API, made of what the gateway itself runs by: the routes, the
// messages with their options, the table of rules and the table of errors.
//
// Thread-safe: a free function without state.
#pragma once

#include <string>
#include <string_view>

#include "controller/rest/router.h"

namespace bunker::controller {

// OpenAPI 3.1 as JSON. Deterministic.
std::string BuildOpenApi(const Router& router, std::string_view version);

}  // namespace bunker::controller
