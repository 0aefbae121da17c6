#include "controller/rest/static_document.h"

#include <utility>

#include "common/base/sha256.h"

namespace bunker::controller {

StaticDocument::StaticDocument(std::string content_type, std::string body)
    : content_type_(std::move(content_type)),
      body_(std::move(body)),
      etag_("\"" + Sha256Hex(body_).substr(0, 32) + "\"") {}

HttpResponse StaticDocument::Answer(std::string_view if_none_match,
                                    std::string_view request_id) const {
  HttpResponse response;
  // A list of tags, some perhaps weak: ours is nowhere within another one.
  const bool known = if_none_match == "*" || if_none_match.find(etag_) != std::string_view::npos;
  response.status = known ? 304 : 200;
  response.headers = {{"ETag", etag_},
                      {"Cache-Control", "private, no-cache"},
                      {"X-Content-Type-Options", "nosniff"},
                      {"X-Request-Id", std::string(request_id)}};
  if (known) return response;
  response.headers.emplace_back("Content-Type", content_type_);
  response.body = body_;
  return response;
}

}  // namespace bunker::controller
