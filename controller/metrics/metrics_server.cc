#include "controller/metrics/metrics_server.h"

#include <utility>

#include "common/base/status_macros.h"

namespace bunker::controller {
namespace {

HttpResponse Text(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.headers = {{"Content-Type", "text/plain; charset=utf-8"}};
  response.body = std::move(body);
  return response;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& host, uint16_t port, Core& core, const metrics::Registry& registry) {
  std::unique_ptr<MetricsServer> server(new MetricsServer(core, registry));
  HttpServerOptions options;
  options.host = host;
  options.port = port;
  options.limits.max_connections = 64;
  options.limits.max_body_bytes = 1 << 10;
  ASSIGN_OR_RETURN(server->http_, HttpServer::Start(options, server.get()));
  return server;
}

void MetricsServer::Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  if (request.target != "/metrics") return exchange->Send(Text(404, "only /metrics is here\n"));
  if (request.method != "GET") {
    HttpResponse response = Text(405, "use GET\n");
    response.headers.emplace_back("Allow", "GET");
    return exchange->Send(std::move(response));
  }
  core_.Post([this, exchange](Engine&, Turn&) {
    HttpResponse response;
    response.headers = {{"Content-Type", metrics::kContentType}, {"Cache-Control", "no-store"}};
    response.body = registry_.Text();
    exchange->Send(std::move(response));
  });
}

HttpResponse MetricsServer::ProtocolError(int http_status, std::string_view message) {
  return Text(http_status, std::string(message) + "\n");
}

}  // namespace bunker::controller
