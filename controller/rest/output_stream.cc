#include "controller/rest/output_stream.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "bunker/v1/bunker.pb.h"
#include "common/base/utf8.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"
#include "controller/rest/sse.h"
#include "controller/rest/sse_stream.h"

namespace bunker::controller {
namespace {

// How many bytes at the end of `text` are the beginning of a character.
size_t UnfinishedBytes(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xc0) == 0x80) continue;
    const size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    return byte <= 0xf4 && back < length ? back : 0;
  }
  return 0;
}

class OutputStream final : public SseStream {
 public:
  OutputStream(std::string request_id, bool base64, std::shared_ptr<HttpExchange> exchange)
      : SseStream(std::move(request_id), std::move(exchange)), base64_(base64) {}

  void Send(const google::protobuf::Message& message) override {
    const auto& event = static_cast<const v1::OutputEvent&>(message);
    switch (event.event_case()) {
      case v1::OutputEvent::kStdout:
        return SendData(event, 0, event.stdout());
      case v1::OutputEvent::kStderr:
        return SendData(event, 1, event.stderr());
      case v1::OutputEvent::kExit: {
        for (size_t i = 0; i < 2; ++i) SendText("", i, text_[i].Rest());
        std::string json;
        AppendMessageJson(&json, event.exit());
        return Write(SseEvent("", "exit", json));
      }
      case v1::OutputEvent::kGap: {
        for (size_t i = 0; i < 2; ++i) SendText("", i, text_[i].Rest());
        std::string json;
        AppendMessageJson(&json, event.gap());
        return Write(SseEvent(std::to_string(event.offset()), "gap", json));
      }
      case v1::OutputEvent::EVENT_NOT_SET:
        return;
    }
  }

 private:
  static constexpr const char* kNames[] = {"stdout", "stderr"};

  void SendData(const v1::OutputEvent& event, size_t stream, const std::string& bytes) {
    const bool has_id = event.has_offset();
    if (base64_) {
      return SendText(has_id ? std::to_string(event.offset()) : "", stream,
                      absl::Base64Escape(bytes));
    }
    // An id says that everything before it was told: a character must not wait behind it.
    if (has_id && text_[1 - stream].waiting_bytes() > 0) {
      SendText(std::to_string(event.offset() - bytes.size()), 1 - stream, text_[1 - stream].Rest());
    }
    const std::string text = text_[stream].Take(bytes);
    SendText(has_id ? std::to_string(event.offset() - text_[stream].waiting_bytes()) : "", stream,
             text);
  }

  void SendText(const std::string& id, size_t stream, const std::string& text) {
    if (text.empty()) return;
    std::string json = "{\"data\":";
    AppendJsonString(&json, text);
    Write(SseEvent(id, kNames[stream], json + "}"));
  }

  const bool base64_;
  TextPieces text_[2];
};

}  // namespace

std::string TextPieces::Take(std::string_view bytes) {
  std::string text = std::move(unfinished_);
  text.append(bytes);
  const size_t unfinished = UnfinishedBytes(text);
  unfinished_ = text.substr(text.size() - unfinished);
  text.resize(text.size() - unfinished);
  return ToValidUtf8(std::move(text));
}

std::string TextPieces::Rest() { return ToValidUtf8(std::exchange(unfinished_, "")); }

std::shared_ptr<StreamSink> MakeOutputStream(std::string request_id, bool base64,
                                             std::shared_ptr<HttpExchange> exchange) {
  return std::make_shared<OutputStream>(std::move(request_id), base64, std::move(exchange));
}

}  // namespace bunker::controller
