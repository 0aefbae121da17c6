#include "controller/ctl/sse_parser.h"

#include <utility>

namespace bunker::ctl {
namespace {
constexpr size_t kEventBytesMax = 1U << 20;
}  // namespace

absl::Status SseParser::Feed(std::string_view piece, std::vector<SseEvent>* events) {
  partial_.append(piece);
  size_t start = 0;
  for (size_t end = partial_.find('\n'); end != std::string::npos;
       end = partial_.find('\n', start)) {
    std::string_view line(partial_.data() + start, end - start);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    TakeLine(line, events);
    start = end + 1;
  }
  partial_.erase(0, start);
  if (partial_.size() + event_.data.size() > kEventBytesMax) {
    return absl::ResourceExhaustedError("an event of the stream is larger than 1 MiB");
  }
  return absl::OkStatus();
}

void SseParser::TakeLine(std::string_view line, std::vector<SseEvent>* events) {
  if (line.empty()) {
    if (has_data_) {
      if (event_.event.empty()) event_.event = "message";
      events->push_back(std::exchange(event_, SseEvent()));
    }
    event_ = SseEvent();
    has_data_ = false;
    return;
  }
  if (line.front() == ':') return;  // a comment keeps the connection alive
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) event_.data += '\n';
    event_.data.append(value);
    has_data_ = true;
  } else if (field == "event") {
    event_.event = std::string(value);
  } else if (field == "id") {
    event_.id = std::string(value);
  }
}

}  // namespace bunker::ctl
