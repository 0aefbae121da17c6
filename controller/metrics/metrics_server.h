// `GET /metrics` on a listener of its own, for the operator: no key, no tenant's names, loopback
// unless configured otherwise.
//
// Start and destruction from one thread.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/metrics/metrics.h"
#include "controller/engine/core.h"
#include "controller/rest/http_server.h"

namespace bunker::controller {

class MetricsServer final : public HttpHandler {
 public:
  // `core` and `registry` must outlive it. The text is made on the loop, so that a scrape shows
  // whether the loop turns.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& host,
                                                              uint16_t port, Core& core,
                                                              const metrics::Registry& registry);
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override;
  HttpResponse ProtocolError(int http_status, std::string_view message) override;

  void Stop() { http_->Stop(absl::ZeroDuration()); }
  uint16_t port() const { return http_->port(); }

 private:
  MetricsServer(Core& core, const metrics::Registry& registry) : core_(core), registry_(registry) {}

  Core& core_;
  const metrics::Registry& registry_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace bunker::controller
