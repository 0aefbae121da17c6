#include "controller/rest/metered_exchange.h"

#include <atomic>
#include <utility>

#include "absl/time/clock.h"

namespace bunker::controller {
namespace {

class MeteredExchange final : public HttpExchange {
 public:
  MeteredExchange(std::shared_ptr<HttpExchange> inner, std::string route, std::string method,
                  std::shared_ptr<HttpMetrics> metrics)
      : inner_(std::move(inner)),
        route_(std::move(route)),
        method_(std::move(method)),
        metrics_(std::move(metrics)),
        began_ns_(absl::GetCurrentTimeNanos()) {}

  ~MeteredExchange() override { LeaveStream(); }

  void Send(HttpResponse response) override {
    Count(response.status);
    inner_->Send(std::move(response));
  }

  void StartStream(HttpResponse head) override {
    Count(head.status);
    if (!streaming_.exchange(true)) metrics_->streams.Add(1);
    inner_->StartStream(std::move(head));
  }

  std::shared_ptr<WebSocket> Upgrade(const HttpRequest& request, WebSocketEvents events) override {
    Count(101);
    if (!streaming_.exchange(true)) metrics_->streams.Add(1);
    return inner_->Upgrade(request, std::move(events));
  }

  void StartBody(HttpResponse head, uint64_t size) override {
    Count(head.status);
    inner_->StartBody(std::move(head), size);
  }
  void AbortStream() override {
    LeaveStream();
    inner_->AbortStream();
  }
  void ReadBody(BodyDone done) override { inner_->ReadBody(std::move(done)); }

  bool WriteEvent(std::string bytes, std::string_view last_words) override {
    return inner_->WriteEvent(std::move(bytes), last_words);
  }

  void EndStream() override {
    LeaveStream();
    inner_->EndStream();
  }

  size_t QueuedBytes() const override { return inner_->QueuedBytes(); }
  void OnDrained(std::function<void()> drained) override { inner_->OnDrained(std::move(drained)); }
  void OnClosed(std::function<void()> closed) override { inner_->OnClosed(std::move(closed)); }

 private:
  void Count(int status) {
    if (counted_.exchange(true)) return;
    metrics_->requests.With({route_, method_, std::to_string(status)}).Add();
    const auto spent_ns = static_cast<double>(absl::GetCurrentTimeNanos() - began_ns_);
    metrics_->seconds.With({route_, method_}).Observe(spent_ns / 1e9);
  }

  void LeaveStream() {
    if (streaming_.exchange(false)) metrics_->streams.Add(-1);
  }

  const std::shared_ptr<HttpExchange> inner_;
  const std::string route_;
  const std::string method_;
  const std::shared_ptr<HttpMetrics> metrics_;
  const int64_t began_ns_;
  std::atomic<bool> counted_{false};
  std::atomic<bool> streaming_{false};
};

}  // namespace

void HttpMetrics::Register(metrics::Registry* registry) const {
  registry->Add("bunker_http_requests_total", "REST requests answered, by route.", &requests);
  registry->Add("bunker_http_request_duration_seconds",
                "From the whole request to the answer's first byte.", &seconds);
  registry->Add("bunker_sse_streams", "Open streams of server-sent events, and WebSockets.",
                &streams);
}

std::shared_ptr<HttpExchange> Metered(std::shared_ptr<HttpExchange> inner, std::string route,
                                      std::string method, std::shared_ptr<HttpMetrics> metrics) {
  return std::make_shared<MeteredExchange>(std::move(inner), std::move(route), std::move(method),
                                           std::move(metrics));
}

}  // namespace bunker::controller
