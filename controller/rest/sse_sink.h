// A feed's reader that is an HTTP exchange: each event a server-sent one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "controller/api/errors.h"
#include "controller/api/event_sink.h"
#include "controller/rest/envelope.h"
#include "controller/rest/http_types.h"
#include "controller/rest/sse.h"

namespace bunker::controller {

// How one event is written, all of it: SseEvent(id, name, data). "" = not at all.
template <typename Event>
using EventWriter = std::string (*)(const Event&);

template <typename Event>
class SseSink final : public EventSink<Event> {
 public:
  SseSink(std::string request_id, std::shared_ptr<HttpExchange> exchange, EventWriter<Event> write)
      : request_id_(std::move(request_id)),
        exchange_(std::move(exchange)),
        write_(write),
        last_words_(SseError(ApiError(
            "UNAVAILABLE",
            "this client reads too slowly and was dropped; connect again with Last-Event-ID"))) {}

  void Begin(std::function<void()> closed, std::function<void()> drained) override {
    begun_ = true;
    exchange_->StartStream(SseHead(request_id_));
    closed_ = closed;
    exchange_->OnDrained(std::move(drained));
    exchange_->OnClosed(std::move(closed));
  }

  bool CanSend() override { return exchange_->QueuedBytes() < kMaxQueuedBytes; }

  void Send(const Event& event) override { Write(write_(event)); }

  void Heartbeat() override { Write(SseHeartbeat()); }

  void End(const absl::Status& why) override {
    if (!begun_) return exchange_->Send(ErrorResponse(ViewOf(why), request_id_));
    if (!why.ok()) Write(SseError(why));
    exchange_->EndStream();
  }

 private:
  // So much may wait for a client; of what changes meanwhile it gets the newest.
  static constexpr size_t kMaxQueuedBytes = 64u << 10;

  void Write(std::string bytes) {
    if (bytes.empty() || dropped_ || exchange_->WriteEvent(std::move(bytes), last_words_)) return;
    dropped_ = true;
    closed_();
  }

  const std::string request_id_;
  const std::shared_ptr<HttpExchange> exchange_;
  const EventWriter<Event> write_;
  const std::string last_words_;
  bool begun_ = false;
  bool dropped_ = false;
  std::function<void()> closed_;
};

}  // namespace bunker::controller
