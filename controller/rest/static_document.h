// A document that never changes while the process runs: served from memory, with an ETag.
//
// Immutable: thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "controller/rest/http_types.h"

namespace bunker::controller {

class StaticDocument {
 public:
  StaticDocument(std::string content_type, std::string body);

  // 200, or 304 where If-None-Match names this very text.
  HttpResponse Answer(std::string_view if_none_match, std::string_view request_id) const;

 private:
  const std::string content_type_;
  const std::string body_;
  const std::string etag_;
};

}  // namespace bunker::controller
