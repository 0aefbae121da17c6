// Splits a text/event-stream into events, whatever pieces it comes in.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace bunker::ctl {

struct SseEvent {
  std::string id;
  std::string event;  // "message" where the stream names none
  std::string data;   // lines joined by "\n"
};

class SseParser {
 public:
  // Appends the events that `piece` completes to `*events`. An event of more than 1 MiB is an
  // error: no row is that large.
  absl::Status Feed(std::string_view piece, std::vector<SseEvent>* events);

 private:
  void TakeLine(std::string_view line, std::vector<SseEvent>* events);

  std::string partial_;
  SseEvent event_;
  bool has_data_ = false;
};

}  // namespace bunker::ctl
