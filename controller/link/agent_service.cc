#include "controller/link/agent_service.h"

#include <memory>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/engine/credentials.h"
#include "controller/link/grpc_status.h"
#include "controller/link/tunnel_end.h"
#include "controller/link/unary_reply.h"
#include "controller/link/worker_auth.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxQueuedFrames = 256;
constexpr size_t kMaxNameBytes = 256;

// Ends a stream that has no business here before anything is read of it.
class RefusedTunnel final
    : public grpc::ServerBidiReactor<link::v1::AgentTunnelFrame,
                                     link::v1::ControllerTunnelFrame> {
 public:
  explicit RefusedTunnel(const grpc::Status& why) { Finish(why); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerUnaryReactor* AgentService::Join(grpc::CallbackServerContext* context,
                                             const link::v1::JoinRequest* request,
                                             link::v1::JoinResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (request->token().size() > kMaxNameBytes || request->worker_name().size() > kMaxNameBytes) {
    reactor->Finish({grpc::StatusCode::INVALID_ARGUMENT, "the token or the name is too long"});
    return reactor;
  }
  core_.Post([reply = UnaryReply(reactor), response, token_sha256 = Sha256Hex(request->token()),
              name = request->worker_name(), peer = context->peer(),
              credential = NewCredential()](Engine& engine, Turn& turn) mutable {
    const auto worker = engine.Join(turn, token_sha256, name, Sha256Hex(credential));
    if (!worker.ok()) {
      Log(Severity::kWarning, "worker.join_refused",
          {{"name", name}, {"peer", peer}, {"why", std::string(worker.status().message())}});
      turn.AfterCommit([reply = std::move(reply),
                        error = worker.status()](const absl::Status&) mutable {
        reply.Finish(ToLinkStatus(error));
      });
      return;
    }
    response->set_worker_id((*worker)->id);
    response->set_credential(credential);
    turn.AfterCommit([reply = std::move(reply)](const absl::Status& status) mutable {
      reply.Finish(ToLinkStatus(status));
    });
  });
  return reactor;
}

namespace {

absl::StatusOr<RowPtr<RegistryCredential>> FindLogin(
    Engine& engine, const absl::StatusOr<std::string>& credential_sha256,
    const std::string& image_id) {
  RETURN_IF_ERROR(credential_sha256.status());
  ASSIGN_OR_RETURN(const RowPtr<Worker> worker, engine.AuthenticateWorker(*credential_sha256));
  return engine.credentials().ForWorker(worker->id, image_id);
}

absl::Status OpenLogin(const KeyRing* keys, const RegistryCredential& row,
                       link::v1::RegistryLogin* response) {
  auto password = keys == nullptr
                      ? absl::StatusOr<std::string>(absl::NotFoundError("no key file"))
                      : keys->Open(row.sealed, SealedTo(row.id, row.host, row.username));
  if (!password.ok()) {
    Log(Severity::kError, "credential.unreadable",
        {{"credential", row.id}, {"why", std::string(password.status().message())}});
    return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                       "the controller can't open the registry credential \"" + row.name +
                           "\": PUT its secret again");
  }
  response->set_name(row.name);
  response->set_host(row.host);
  response->set_username(row.username);
  response->set_password(*password);
  Wipe(*password);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* AgentService::GetRegistryLogin(
    grpc::CallbackServerContext* context, const link::v1::RegistryLoginRequest* request,
    link::v1::RegistryLogin* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  core_.Post([this, reply = UnaryReply(reactor), response, image_id = request->image_id(),
              credential = CredentialHashOf(*context)](Engine& engine, Turn& turn) mutable {
    const auto row = FindLogin(engine, credential, image_id);
    turn.AfterCommit([keys = keys_, reply = std::move(reply), response,
                      row](const absl::Status& committed) mutable {
      absl::Status status = committed.ok() ? row.status() : committed;
      if (status.ok()) status = OpenLogin(keys, **row, response);
      reply.Finish(ToLinkStatus(status));
    });
  });
  return reactor;
}

grpc::ServerBidiReactor<link::v1::AgentFrame, link::v1::ControllerFrame>* AgentService::Connect(
    grpc::CallbackServerContext* context) {
  const uint64_t number = next_session_.fetch_add(1);
  AgentStream::Events events;
  events.on_read = [this, number](link::v1::AgentFrame frame) {
    core_.Post([this, number, frame = std::move(frame)](Engine& engine, Turn& turn) mutable {
      sessions_.OnFrame(engine, turn, number, std::move(frame));
    });
  };
  // Most of what a large fleet says: it doesn't wake the loop.
  events.is_noted = [this, number](const link::v1::AgentFrame& frame) {
    if (!frame.has_ping()) return false;
    sessions_.NotePing(number);
    return true;
  };
  events.on_end = [this, number](bool) {
    core_.Post([this, number](Engine& engine, Turn& turn) {
      sessions_.OnEnd(engine, turn, number);
    });
  };
  auto stream = AgentStream::Create(context, kMaxQueuedFrames, std::move(events));
  core_.Post([this, number, stream,
              credential = CredentialHashOf(*context)](Engine& engine, Turn& turn) mutable {
    sessions_.OnOpen(engine, turn, number, stream, std::move(credential));
  });
  return stream->reactor();
}

grpc::ServerBidiReactor<link::v1::AgentTunnelFrame, link::v1::ControllerTunnelFrame>*
AgentService::Tunnel(grpc::CallbackServerContext* context) {
  auto credential = CredentialHashOf(*context);
  if (!credential.ok()) return new RefusedTunnel(ToLinkStatus(credential.status()));
  return std::make_shared<TunnelEnd>(core_, tunnels_)
      ->Open(context, *std::move(credential))
      ->reactor();
}

}  // namespace bunker::controller
