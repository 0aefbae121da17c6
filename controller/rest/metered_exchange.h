// Counts what the REST API answers: by route, verb and status, and how long it took. A route is its
// template, never a path.
//
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "common/metrics/metrics.h"
#include "controller/rest/http_types.h"

namespace bunker::controller {

struct HttpMetrics {
  metrics::Family<metrics::Counter> requests{{"route", "method", "status"}};
  metrics::Family<metrics::Histogram> seconds{
      {"route", "method"},
      [] { return std::make_unique<metrics::Histogram>(metrics::WaitSeconds()); }};
  metrics::Gauge streams;  // server-sent events, open now

  void Register(metrics::Registry* registry) const;
};

// An exchange that passes everything on to `inner` and counts it as `route` and `method`.
std::shared_ptr<HttpExchange> Metered(std::shared_ptr<HttpExchange> inner, std::string route,
                                      std::string method, std::shared_ptr<HttpMetrics> metrics);

}  // namespace bunker::controller
