// REST: routes a request by the descriptors, turns it into the RPC's message, has the dispatcher
// answer, wraps the answer. No noun is known here but the one that can be streamed.
//
// Thread-safe after construction.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bunker/v1/bunker.pb.h"
#include "controller/api/dispatcher.h"
#include "controller/api/shell_tickets.h"
#include "controller/rest/http_types.h"
#include "controller/rest/metered_exchange.h"
#include "controller/rest/router.h"
#include "controller/rest/static_document.h"

namespace bunker::controller {

class Gateway final : public HttpHandler {
 public:
  struct Options {
    absl::Duration sse_heartbeat = absl::Seconds(15);
    std::string version;  // of the API's document
    ShellTickets* tickets = nullptr;           // null: none is good; outlives the gateway
    std::vector<std::string> allowed_origins;  // of pages that may open shells, beside our own
  };

  // All of the public services. Fails where the routes are ambiguous. `core` and `dispatcher` must
  // outlive the gateway and every exchange it was given.
  static absl::StatusOr<std::unique_ptr<Gateway>> Create(Core& core, Dispatcher& dispatcher,
                                                         Options options);

  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override;
  bool StreamsBody(const HttpRequest& head) override;
  HttpResponse ProtocolError(int http_status, std::string_view message) override;

  const Router& router() const { return router_; }
  const HttpMetrics& metrics() const { return *metrics_; }

 private:
  Gateway(Core& core, Dispatcher& dispatcher, Options options, Router router);

  void SendOpenApi(const HttpRequest& request, CallInfo info,
                   std::shared_ptr<HttpExchange> exchange);
  void Answer(const HttpRequest& request, const Router::Match& match, CallInfo info,
              std::shared_ptr<HttpExchange> exchange);
  void StreamExec(const Route& route, const v1::ExecRequest& request, CallInfo info,
                  std::shared_ptr<HttpExchange> exchange);
  void StreamProcess(const Route& route, std::shared_ptr<google::protobuf::Message> message,
                     const HttpRequest& request, CallInfo info,
                     std::shared_ptr<HttpExchange> exchange);
  void StreamLogs(const Route& route, std::shared_ptr<google::protobuf::Message> message,
                  const HttpRequest& request, CallInfo info,
                  std::shared_ptr<HttpExchange> exchange);
  void OpenShell(const Route& route, std::shared_ptr<google::protobuf::Message> message,
                 const HttpRequest& request, CallInfo info, std::shared_ptr<HttpExchange> exchange);
  void Call(const Route& route, std::shared_ptr<google::protobuf::Message> message, CallInfo info,
            std::shared_ptr<HttpExchange> exchange);

  Core& core_;
  Dispatcher& dispatcher_;
  const Options options_;
  const Router router_;
  const StaticDocument openapi_;
  const std::shared_ptr<HttpMetrics> metrics_ = std::make_shared<HttpMetrics>();
};

// The services that both transports offer.
std::vector<const google::protobuf::ServiceDescriptor*> PublicServices();

}  // namespace bunker::controller
