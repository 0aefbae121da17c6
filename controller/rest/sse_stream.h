// A stream's reader that is an HTTP exchange: server-sent events. What one looks like is for those
// who derive from it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "controller/api/errors.h"
#include "controller/api/stream_sink.h"
#include "controller/rest/envelope.h"
#include "controller/rest/http_types.h"
#include "controller/rest/sse.h"

namespace bunker::controller {

class SseStream : public StreamSink {
 public:
  SseStream(std::string request_id, std::shared_ptr<HttpExchange> exchange)
      : request_id_(std::move(request_id)),
        exchange_(std::move(exchange)),
        last_words_(SseError(
            ApiError("UNAVAILABLE", "this client reads too slowly and was dropped"))) {}

  void Listen(std::function<void()> closed, std::function<void()> drained) override {
    exchange_->OnDrained(std::move(drained));
    exchange_->OnClosed(std::move(closed));
  }
  void Begin() override {
    begun_ = true;
    exchange_->StartStream(SseHead(request_id_));
  }
  bool CanSend() override { return exchange_->QueuedBytes() < kMaxQueuedBytes; }
  void Heartbeat() override { Write(SseHeartbeat()); }
  void End(const absl::Status& why) override {
    if (!begun_) {
      const absl::Status told = why.ok() ? absl::InternalError("a stream without a word") : why;
      return exchange_->Send(ErrorResponse(ViewOf(told), request_id_));
    }
    if (!why.ok()) Write(SseError(why));
    exchange_->EndStream();
  }

 protected:
  void Write(std::string bytes) { exchange_->WriteEvent(std::move(bytes), last_words_); }

 private:
  // So much may wait for a client; an event of 16 KiB of data is below 100 KiB.
  static constexpr size_t kMaxQueuedBytes = 64u << 10;

  const std::string request_id_;
  const std::shared_ptr<HttpExchange> exchange_;
  const std::string last_words_;
  bool begun_ = false;
};

}  // namespace bunker::controller
