// `GET /images` with a JSON body: {"digest": "user/image@sha256:…"} or {"tag": "user/image:tag"},
// as clients of Unikraft Cloud look images up. An adapter; the OpenAPI document leaves it out,
// since a GET has no body there.
//
// Thread-safe: free functions without state.
#pragma once

#include <memory>

#include "controller/api/dispatcher.h"
#include "controller/rest/http_types.h"
#include "controller/rest/router.h"

namespace bunker::controller {

bool IsUnikraftLookUp(const Route& route, const HttpRequest& request);

// Answers with a list of the image that matches, or an empty one. Of its rows, `tags` are without
// the registry's host, `owner` and `users` (who may see it, by id) are there for a super_admin
// alone, and `args` and `env` only where they hold something.
void StartUnikraftLookUp(Dispatcher& dispatcher, CallInfo info, const HttpRequest& request,
                         std::shared_ptr<HttpExchange> exchange);

}  // namespace bunker::controller
