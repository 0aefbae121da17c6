// Reads what a guest sends over a plain HTTP/1 connection and lets only requests through that name
// an allowed host, each of them: a connection may carry many.
//
// Not thread-safe. No input makes it read out of bounds or keep more than one request's head.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bunker::agent {

class HttpGate {
 public:
  // Whether a request to that host (canonical, without its port) may pass.
  using Allows = std::function<bool(const std::string& host)>;

  explicit HttpGate(Allows allows) : allows_(std::move(allows)) {}

  // Appends to `pass` what may go on of `bytes` and of what was held back before. An error means
  // that the connection must end: kPermissionDenied names a host that is not allowed, anything
  // else is no HTTP/1 as this gate reads it. It reads strictly, so that no server reads the same
  // bytes as other requests.
  absl::Status Feed(std::string_view bytes, std::string* pass);

  // Of the newest request whose head is complete.
  const std::string& host() const { return host_; }

 private:
  enum class State { kHead, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailer };

  absl::Status TakeHead(std::string_view head);
  absl::Status ReadHeader(std::string_view line, bool* has_host, bool* has_length, bool* chunked);
  absl::Status TakeLine(std::string_view* in, std::string* pass, bool* whole);
  absl::Status OnLine(std::string_view line);

  Allows allows_;
  State state_ = State::kHead;
  std::string held_;   // a head or a line that is not complete yet
  uint64_t left_ = 0;  // of a body or a chunk
  uint64_t trailer_bytes_ = 0;
  std::string host_;
  std::string target_host_;
};

// Whether a connection that begins so can be HTTP/1.
bool LooksLikeHttp(std::string_view bytes);

}  // namespace bunker::agent
