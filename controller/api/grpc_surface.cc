#include "controller/api/grpc_surface.h"

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/hex.h"
#include "common/base/rng.h"
#include "controller/api/errors.h"
#include "controller/api/grpc_watch.h"
#include "google/api/annotations.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/impl/codegen/server_callback_handlers.h"
#include "grpcpp/impl/service_type.h"
#include "grpcpp/support/method_handler.h"

namespace bunker::controller {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

std::string Metadata(const grpc::CallbackServerContext& context, const char* name) {
  const auto it = context.client_metadata().find(name);
  return it == context.client_metadata().end()
             ? ""
             : std::string(it->second.data(), it->second.size());
}

CallInfo InfoOf(const grpc::CallbackServerContext& context) {
  SystemRng rng;
  CallInfo info;
  info.request_id = "req_" + HexEncode(rng.Bytes(12));
  info.trusted = context.peer().rfind("unix:", 0) == 0;
  info.authorization = Metadata(context, "authorization");
  info.idempotency_key = Metadata(context, "idempotency-key");
  info.received_at = absl::Now();
  info.cancel = std::make_shared<std::function<void()>>();
  return info;
}

// One call. gRPC deletes it through OnDone, after Finish.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(Core& core, std::shared_ptr<std::function<void()>> cancel)
      : core_(core), cancel_(std::move(cancel)) {}

  void OnDone() override { delete this; }

  // The client went away, or its deadline passed.
  void OnCancel() override {
    core_.Post([cancel = cancel_](Engine&, Turn& turn) {
      turn.AfterCommit([cancel](const absl::Status&) {
        if (*cancel) (*cancel)();
      });
    });
  }

 private:
  Core& core_;
  const std::shared_ptr<std::function<void()>> cancel_;
};

void FinishCall(const Dispatcher::Answer& answer, grpc::ByteBuffer* response,
                grpc::ServerUnaryReactor* reactor) {
  if (!answer.ok()) return reactor->Finish(ToGrpcStatus(answer.status()));
  bool own_buffer = false;
  reactor->Finish(
      grpc::GenericSerialize<grpc::ProtoBufferWriter, Message>(**answer, response, &own_buffer));
}

}  // namespace

// One service whose methods are known by descriptor only: raw bytes in, raw bytes out.
class GrpcSurface::DescribedService final : public grpc::Service {
 public:
  DescribedService(Core& core, Dispatcher& dispatcher, const ServiceDescriptor* service)
      : core_(core), dispatcher_(dispatcher) {
    using Handler = grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer, grpc::ByteBuffer>;
    names_.reserve(static_cast<size_t>(service->method_count()));
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor* method = service->method(i);
      names_.push_back("/" + service->full_name() + "/" + method->name());
      if (method->server_streaming()) {
        AddStream(i, method);
        continue;
      }
      AddMethod(new grpc::internal::RpcServiceMethod(
          names_.back().c_str(), grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
      MarkMethodRawCallback(
          i, new Handler([this, method](grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) {
            return Serve(method, context, request, response);
          }));
    }
  }

 private:
  void AddStream(int index, const MethodDescriptor* method) {
    using Handler =
        grpc::internal::CallbackServerStreamingHandler<grpc::ByteBuffer, grpc::ByteBuffer>;
    AddMethod(new grpc::internal::RpcServiceMethod(
        names_.back().c_str(), grpc::internal::RpcMethod::SERVER_STREAMING, nullptr));
    MarkMethodRawCallback(
        index, new Handler([this, method](grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request) {
          return ServeStream(core_, dispatcher_, method, InfoOf(*context), *request);
        }));
  }

  grpc::ServerUnaryReactor* Serve(const MethodDescriptor* method,
                                  grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
    std::shared_ptr<Message> message(google::protobuf::MessageFactory::generated_factory()
                                         ->GetPrototype(method->input_type())->New());
    CallInfo info = InfoOf(*context);
    auto* call = new UnaryCall(core_, info.cancel);
    grpc::ByteBuffer bytes(*request);
    if (!grpc::GenericDeserialize<grpc::ProtoBufferReader, Message>(&bytes, message.get()).ok()) {
      call->Finish(ToGrpcStatus(ValidationError("", "the request is no " +
                                                        method->input_type()->full_name())));
      return call;
    }
    const std::string& body = method->options().GetExtension(google::api::http).body();
    dispatcher_.Invoke(method, std::move(message), std::move(info), body == "*" ? "" : body,
                       [call, response](const Dispatcher::Answer& answer) {
                         FinishCall(answer, response, call);
                       });
    return call;
  }

  Core& core_;
  Dispatcher& dispatcher_;
  std::vector<std::string> names_;  // the library keeps pointers into them
};

GrpcSurface::GrpcSurface(Core& core, Dispatcher& dispatcher,
                         const std::vector<const ServiceDescriptor*>& services) {
  for (const ServiceDescriptor* service : services)
    services_.push_back(std::make_unique<DescribedService>(core, dispatcher, service));
}

GrpcSurface::~GrpcSurface() = default;

void GrpcSurface::Register(grpc::ServerBuilder& builder) {
  for (const auto& service : services_) builder.RegisterService(service.get());
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorView view = ViewOf(status);
  google::rpc::Status details;
  details.set_code(static_cast<int>(view.row->code));
  details.set_message(view.message);
  google::rpc::ErrorInfo info;
  info.set_reason(view.row->reason);
  info.set_domain("bunker");
  details.add_details()->PackFrom(info);
  if (!view.violations.empty()) {
    google::rpc::BadRequest bad;
    for (const FieldViolation& violation : view.violations) {
      bad.add_field_violations()->set_field(violation.field);
      bad.mutable_field_violations(bad.field_violations_size() - 1)
          ->set_description(violation.message);
    }
    details.add_details()->PackFrom(bad);
  }
  if (view.retry_after) {
    google::rpc::RetryInfo retry;
    const int64_t ms = absl::ToInt64Milliseconds(*view.retry_after);
    retry.mutable_retry_delay()->set_seconds(ms / 1000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
    details.add_details()->PackFrom(retry);
  }
  if (view.placement) details.add_details()->PackFrom(*view.placement);
  return grpc::Status(static_cast<grpc::StatusCode>(view.row->code), view.message,
                      details.SerializeAsString());
}

}  // namespace bunker::controller
