#include "controller/rest/gateway.h"

#include <utility>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "bunker/v1/account.pb.h"
#include "bunker/v1/audit.pb.h"
#include "bunker/v1/bridge.pb.h"
#include "bunker/v1/bunker.pb.h"
#include "bunker/v1/file.pb.h"
#include "bunker/v1/group.pb.h"
#include "bunker/v1/image.pb.h"
#include "bunker/v1/log.pb.h"
#include "bunker/v1/modelarts.pb.h"
#include "bunker/v1/options.pb.h"
#include "bunker/v1/placement.pb.h"
#include "bunker/v1/process.pb.h"
#include "bunker/v1/quota.pb.h"
#include "bunker/v1/registry_credential.pb.h"
#include "bunker/v1/scan.pb.h"
#include "bunker/v1/snapshot.pb.h"
#include "bunker/v1/worker.pb.h"
#include "common/base/hex.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "controller/api/errors.h"
#include "controller/rest/bunker_stream.h"
#include "controller/rest/cache_stream.h"
#include "controller/rest/envelope.h"
#include "controller/rest/file_stream.h"
#include "controller/rest/openapi.h"
#include "controller/rest/output_stream.h"
#include "controller/rest/request_reader.h"
#include "controller/rest/shell_socket.h"
#include "controller/rest/unikraft.h"

namespace bunker::controller {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr char kEventsMethod[] = "bunker.v1.Bunkers.ListBunkerEvents";
constexpr char kEventsOfOneMethod[] = "bunker.v1.Bunkers.GetBunkerEvents";
constexpr std::string_view kCacheMethod = "bunker.v1.Images.GetImageCache";
constexpr std::string_view kExecMethod = "bunker.v1.Bunkers.Exec";
constexpr std::string_view kLogsMethod = "bunker.v1.Logs.GetBunkerLogs";
constexpr std::string_view kWatchMethod = "bunker.v1.Files.WatchFiles";
constexpr std::string_view kShellMethod = "bunker.v1.Shells.OpenShell";

std::string NewRequestId() {
  SystemRng rng;
  return "req_" + HexEncode(rng.Bytes(12));
}

bool IsOpenApi(std::string_view path) {
  return path == "/openapi.json" || path == "/v1/modules/scaibunker/openapi.json";
}

// Of what a client may send as a method, those that a label may hold.
std::string MethodLabel(const std::string& method) {
  for (const char* known : {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}) {
    if (method == known) return method;
  }
  return "other";
}

// Of a route that has nothing else: whoever does not ask for another form.
bool TakesEvents(const HttpRequest& request) {
  const std::string_view accept = request.Header("accept");
  return accept.empty() || accept.find("text/event-stream") != std::string_view::npos ||
         accept.find("*/*") != std::string_view::npos;
}

bool WantsEvents(const HttpRequest& request) {
  return request.Header("accept").find("text/event-stream") != std::string_view::npos;
}

void SendError(HttpExchange& exchange, const absl::Status& status, std::string_view request_id) {
  exchange.Send(ErrorResponse(ViewOf(status), request_id));
}

bool IsFlat(const MethodDescriptor* method) {
  return method->options().GetExtension(v1::flat);
}

void SendError(HttpExchange& exchange, const MethodDescriptor* method, const absl::Status& status,
               std::string_view request_id) {
  if (!IsFlat(method)) return SendError(exchange, status, request_id);
  exchange.Send(FlatErrorResponse(ViewOf(status), request_id));
}

// Not with this verb.
void SendNotAllowed(std::string_view method, const std::string& allowed, HttpExchange& exchange,
                    std::string_view request_id) {
  HttpResponse response = ErrorResponse(
      ViewOf(ApiError("METHOD_NOT_ALLOWED",
                      fmt::format("{} is not served here; use {}", method.substr(0, 32), allowed))),
      request_id);
  response.headers.emplace_back("Allow", allowed);
  exchange.Send(std::move(response));
}

// No route: whether it is the path or the verb.
void SendNoRoute(const HttpRequest& request, const Router::Match& match, HttpExchange& exchange,
                 std::string_view request_id) {
  if (match.allowed.empty()) {
    return SendError(exchange,
                     ApiError("NOT_FOUND", "there is no such route; the routes of this module are "
                                           "under /v1/modules/scaibunker/"),
                     request_id);
  }
  SendNotAllowed(request.method, fmt::format("{}", fmt::join(match.allowed, ", ")), exchange,
                 request_id);
}

}  // namespace

std::vector<const google::protobuf::ServiceDescriptor*> PublicServices() {
  std::vector<const google::protobuf::ServiceDescriptor*> services;
  for (const auto* file :
       {v1::Image::descriptor()->file(), v1::RegistryCredential::descriptor()->file(),
        v1::AvailabilityGroup::descriptor()->file(), v1::Worker::descriptor()->file(),
        v1::Bunker::descriptor()->file(), v1::PlacementExplanation::descriptor()->file(),
        v1::QuotaProfile::descriptor()->file(), v1::WhoAmIRequest::descriptor()->file(),
        v1::Process::descriptor()->file(), v1::File::descriptor()->file(),
        v1::AuditRow::descriptor()->file(), v1::ModelArtsImage::descriptor()->file(),
        v1::Sbom::descriptor()->file(), v1::Snapshot::descriptor()->file(),
        v1::BunkerLogs::descriptor()->file(), v1::Bridge::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) services.push_back(file->service(i));
  }
  return services;
}

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Create(Core& core, Dispatcher& dispatcher,
                                                         Options options) {
  ASSIGN_OR_RETURN(Router router, Router::Build(PublicServices()));
  return std::unique_ptr<Gateway>(
      new Gateway(core, dispatcher, std::move(options), std::move(router)));
}

Gateway::Gateway(Core& core, Dispatcher& dispatcher, Options options, Router router)
    : core_(core),
      dispatcher_(dispatcher),
      options_(std::move(options)),
      router_(std::move(router)),
      openapi_("application/json", BuildOpenApi(router_, options_.version)) {}

// To all who may ask who they are.
void Gateway::SendOpenApi(const HttpRequest& request, CallInfo info,
                          std::shared_ptr<HttpExchange> exchange) {
  const std::string id = info.request_id;
  if (request.method != "GET") return SendNotAllowed(request.method, "GET", *exchange, id);
  dispatcher_.Admit(
      "bunker.v1.Accounts.WhoAmI", std::move(info),
      [this, exchange, id,
       known = std::string(request.Header("if-none-match"))](CallContext& context) {
        context.turn.AfterCommit([this, exchange, id, known](const absl::Status&) {
          exchange->Send(openapi_.Answer(known, id));
        });
      },
      [exchange, id](const absl::Status& status) { SendError(*exchange, status, id); });
}

void Gateway::Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  CallInfo info;
  info.request_id = NewRequestId();
  info.received_at = absl::Now();
  info.authorization = std::string(request.Header("authorization"));
  info.idempotency_key = std::string(request.Header("idempotency-key"));
  info.if_match = std::string(request.Header("if-match"));
  const std::string_view path =
      std::string_view(request.target).substr(0, request.target.find('?'));
  const bool is_openapi = IsOpenApi(path);
  const Router::Match match = is_openapi ? Router::Match() : router_.Find(request.method, path);
  exchange = Metered(std::move(exchange),
                     is_openapi               ? "/openapi.json"
                     : match.route == nullptr ? "none"
                                              : TemplateOf(*match.route),
                     MethodLabel(request.method), metrics_);
  if (is_openapi) return SendOpenApi(request, std::move(info), std::move(exchange));
  if (match.route == nullptr) return SendNoRoute(request, match, *exchange, info.request_id);
  Answer(request, match, std::move(info), std::move(exchange));
}

void Gateway::Answer(const HttpRequest& request, const Router::Match& match, CallInfo info,
                     std::shared_ptr<HttpExchange> exchange) {
  const MethodDescriptor* method = match.route->method;
  if (IsUnikraftLookUp(*match.route, request))
    return StartUnikraftLookUp(dispatcher_, std::move(info), request, std::move(exchange));
  std::shared_ptr<Message> message(google::protobuf::MessageFactory::generated_factory()
                                       ->GetPrototype(method->input_type())->New());
  const absl::Status read = ReadRequest(request, match, message.get());
  if (!read.ok()) {
    // Who has no key learns that first, whatever the request looks like.
    const std::string id = info.request_id;
    dispatcher_.Admit(
        method->full_name(), std::move(info),
        [exchange, read, id, method](CallContext& context) {
          context.turn.AfterCommit([exchange, read, id, method](const absl::Status&) {
            SendError(*exchange, method, read, id);
          });
        },
        [exchange, id, method](const absl::Status& status) {
          SendError(*exchange, method, status, id);
        });
    return;
  }
  if (method->full_name() == kCacheMethod && WantsEvents(request)) {
    return StartCacheStream(
        core_, dispatcher_, std::move(info), static_cast<const v1::GetImageCacheRequest&>(*message),
        std::string(request.Header("last-event-id")), options_.sse_heartbeat, std::move(exchange));
  }
  if (method->full_name() == kShellMethod) {
    return OpenShell(*match.route, std::move(message), request, std::move(info),
                     std::move(exchange));
  }
  const bool is_watch = method->full_name() == kWatchMethod;
  if (is_watch || method->options().GetExtension(v1::raw_bytes)) {
    auto sink = is_watch ? MakeFileEventStream(info.request_id, std::move(exchange))
                         : MakeFileStream(info.request_id, request.content_length,
                                          std::move(exchange));
    return dispatcher_.OpenStream(method, std::move(message), std::move(info), match.route->body,
                                  std::move(sink));
  }
  if (method->server_streaming()) {
    return StreamProcess(*match.route, std::move(message), request, std::move(info),
                         std::move(exchange));
  }
  if (method->full_name() == kExecMethod) {
    const auto& exec = static_cast<const v1::ExecRequest&>(*message);
    if (exec.stream()) return StreamExec(*match.route, exec, std::move(info), std::move(exchange));
  }
  if (method->full_name() == kLogsMethod &&
      static_cast<const v1::GetBunkerLogsRequest&>(*message).follow()) {
    return StreamLogs(*match.route, std::move(message), request, std::move(info),
                      std::move(exchange));
  }
  const bool is_events =
      method->full_name() == kEventsMethod || method->full_name() == kEventsOfOneMethod;
  if (is_events && TakesEvents(request)) {
    const auto* one = google::protobuf::DynamicCastToGenerated<const v1::GetBunkerEventsRequest>(
        static_cast<const Message*>(message.get()));
    return StartBunkerStream(core_, dispatcher_, method->full_name(), std::move(info),
                             one == nullptr ? "" : one->bunker(),
                             std::string(request.Header("last-event-id")), options_.sse_heartbeat,
                             std::move(exchange));
  }
  Call(*match.route, std::move(message), std::move(info), std::move(exchange));
}

void Gateway::StreamExec(const Route& route, const v1::ExecRequest& request, CallInfo info,
                         std::shared_ptr<HttpExchange> exchange) {
  const MethodDescriptor* method = route.method->service()->FindMethodByName("ExecStream");
  auto sink = MakeOutputStream(info.request_id,
                               request.output() == v1::OUTPUT_ENCODING_BASE64,
                               std::move(exchange));
  dispatcher_.OpenStream(method, std::make_shared<v1::ExecRequest>(request), std::move(info),
                         route.body, std::move(sink));
}

void Gateway::StreamProcess(const Route& route, std::shared_ptr<Message> message,
                            const HttpRequest& request, CallInfo info,
                            std::shared_ptr<HttpExchange> exchange) {
  auto& read = static_cast<v1::ReadProcessOutputRequest&>(*message);
  uint64_t last = 0;
  if (absl::SimpleAtoi(std::string(request.Header("last-event-id")), &last)) read.set_offset(last);
  auto sink = MakeOutputStream(info.request_id, read.output() == v1::OUTPUT_ENCODING_BASE64,
                               std::move(exchange));
  dispatcher_.OpenStream(route.method, std::move(message), std::move(info), route.body,
                         std::move(sink));
}

void Gateway::StreamLogs(const Route& route, std::shared_ptr<Message> message,
                         const HttpRequest& request, CallInfo info,
                         std::shared_ptr<HttpExchange> exchange) {
  const MethodDescriptor* method = route.method->service()->FindMethodByName("ReadBunkerLogs");
  auto& read = static_cast<v1::GetBunkerLogsRequest&>(*message);
  uint64_t last = 0;
  if (absl::SimpleAtoi(std::string(request.Header("last-event-id")), &last)) read.set_offset(last);
  auto sink = MakeOutputStream(info.request_id, read.output() == v1::OUTPUT_ENCODING_BASE64,
                               std::move(exchange));
  dispatcher_.OpenStream(method, std::move(message), std::move(info), route.body, std::move(sink));
}

void Gateway::OpenShell(const Route& route, std::shared_ptr<Message> message,
                        const HttpRequest& request, CallInfo info,
                        std::shared_ptr<HttpExchange> exchange) {
  auto& shell = static_cast<v1::OpenShellRequest&>(*message);
  absl::Status refused = CheckOrigin(request, options_.allowed_origins);
  if (refused.ok() && !shell.ticket().empty()) {
    const auto ticket = options_.tickets == nullptr
                            ? std::nullopt
                            : options_.tickets->Take(shell.ticket(), info.received_at);
    if (ticket) {
      info.key_sha256 = ticket->key_sha256;
      info.ticket_bunker_id = ticket->bunker_id;
    } else {
      refused = ApiError("AUTH_TOKEN_INVALID",
                         "the ticket is unknown, used or too old; ask for another one");
    }
  }
  if (!refused.ok()) return SendError(*exchange, refused, info.request_id);
  shell.clear_ticket();
  auto sink = MakeShellSocket(info.request_id, request, std::move(exchange));
  dispatcher_.OpenStream(route.method, std::move(message), std::move(info), route.body,
                         std::move(sink));
}

void Gateway::Call(const Route& route, std::shared_ptr<Message> message, CallInfo info,
                   std::shared_ptr<HttpExchange> exchange) {
  const std::string id = info.request_id;
  info.cancel = std::make_shared<std::function<void()>>();
  exchange->OnClosed([core = &core_, cancel = info.cancel] {
    core->Post([cancel](Engine&, Turn& turn) {
      turn.AfterCommit([cancel](const absl::Status&) {
        if (*cancel) (*cancel)();
      });
    });
  });
  dispatcher_.Invoke(route.method, std::move(message), std::move(info), route.body,
                     [exchange, id, method = route.method](Dispatcher::Answer answer) {
                       if (!answer.ok()) return SendError(*exchange, method, answer.status(), id);
                       exchange->Send(IsFlat(method)
                                          ? FlatResponse(**answer, id)
                                          : OkResponse(SuccessStatus(method), **answer, id));
                     });
}

bool Gateway::StreamsBody(const HttpRequest& head) {
  const std::string_view path = std::string_view(head.target).substr(0, head.target.find('?'));
  const Router::Match match = router_.Find(head.method, path);
  return match.route != nullptr && match.route->verb == "PUT" &&
         match.route->method->options().GetExtension(v1::raw_bytes);
}

HttpResponse Gateway::ProtocolError(int http_status, std::string_view message) {
  const char* reason = http_status == 413   ? "PAYLOAD_TOO_LARGE"
                       : http_status == 503 ? "UNAVAILABLE"
                                            : "VALIDATION_ERROR";
  HttpResponse response = ErrorResponse(ViewOf(ApiError(reason, message)), NewRequestId());
  response.status = http_status;
  return response;
}

}  // namespace bunker::controller
