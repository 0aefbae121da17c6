// What a command writes as server-sent events: `stdout` and `stderr` ({"data"}), last `exit`.
#pragma once

#include <memory>
#include <string>

#include "controller/api/stream_sink.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

// Sends v1::OutputEvent to `exchange`. As text, invalid UTF-8 becomes U+FFFD and a character that
// two pieces share is kept whole; as base64 the bytes are exact. Thread-safe.
std::shared_ptr<StreamSink> MakeOutputStream(std::string request_id, bool base64,
                                             std::shared_ptr<HttpExchange> exchange);

// The text of bytes that come in pieces.
class TextPieces {
 public:
  // What can be told by now; the bytes of an unfinished last character wait for the next piece.
  std::string Take(std::string_view bytes);
  // Nothing more comes: what waited is no character.
  std::string Rest();
  size_t waiting_bytes() const { return unfinished_.size(); }

 private:
  std::string unfinished_;
};

}  // namespace bunker::controller
