#include "controller/link/admin_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "controller/engine/audit_log.h"
#include "controller/link/grpc_status.h"
#include "controller/link/server_parts.h"
#include "controller/link/unary_reply.h"
#include "controller/link/worker_auth.h"

namespace bunker::controller {
namespace {

constexpr uint32_t kMaxTtlSeconds = 600;

absl::Status Validate(const v1::CreateJoinTokenRequest& request) {
  if (!IsWorkerName(request.worker_name())) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "worker_name must be 1 to 128 letters, digits, dots, dashes or "
                       "underscores, and begin with a letter or digit");
  }
  if (request.ttl_s() > kMaxTtlSeconds) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "ttl_s must be at most 600: a join token is used at once or made anew");
  }
  return absl::OkStatus();
}

absl::Status CheckFolder(const std::string& folder) {
  struct stat info = {};
  if (::lstat(folder.c_str(), &info) != 0) {
    if (errno != ENOENT) return ErrnoError(errno, "the admin socket's folder " + folder);
    RETURN_IF_ERROR(MakeFolders(folder, 0700));
    if (::lstat(folder.c_str(), &info) != 0) return ErrnoError(errno, folder);
  }
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & 022) != 0) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                       "the admin socket's folder " + folder +
                           " must be a folder of this process's user that others can't write to; "
                           "chown it, and chmod 0700");
  }
  return absl::OkStatus();
}

// Removes a socket that nobody listens on.
absl::Status ClearSocket(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "the admin socket's path " + path + " is longer than 107 bytes; choose a "
                       "shorter one");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "INTERNAL",
                       path + " is in the way of the admin socket and is no socket; remove it");
  }
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return ErrnoError(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "RESOURCE_IN_USE",
                       "another controller serves the admin socket " + path + "; stop it first");
  }
  if (::unlink(path.c_str()) != 0) return ErrnoError(errno, "removing the old " + path);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::CreateJoinToken(grpc::CallbackServerContext* context,
                                                        const v1::CreateJoinTokenRequest* request,
                                                        v1::CreateJoinTokenResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const absl::Status valid = Validate(*request); !valid.ok()) {
    reactor->Finish(ToLinkStatus(valid));
    return reactor;
  }
  const std::string token = NewJoinToken();
  CreateJoinTokenSpec spec;
  spec.worker_name = request->worker_name();
  spec.sha256 = Sha256Hex(token);
  spec.labels.insert(request->labels().begin(), request->labels().end());
  spec.ttl = absl::Seconds(request->ttl_s() == 0 ? kMaxTtlSeconds : request->ttl_s());
  core_.Post([reply = UnaryReply(reactor), response, token,
              spec = std::move(spec)](Engine& engine, Turn& turn) mutable {
    const auto row = engine.CreateJoinToken(turn, spec);
    AuditEntry entry;
    entry.actor = "operator";
    entry.action = "Admin.CreateJoinToken";
    entry.target = spec.worker_name;
    entry.outcome = row.ok() ? "ok" : ReasonOf(row.status());
    engine.audit().Append(turn, std::move(entry));
    if (row.ok()) {
      response->set_token(token);
      response->set_worker_name((*row)->worker_name);
      response->set_expires_at_unix_ms(absl::ToUnixMillis((*row)->expires_at));
    }
    turn.AfterCommit([reply = std::move(reply), name = spec.worker_name,
                      error = row.status()](const absl::Status& status) mutable {
      const absl::Status& result = error.ok() ? status : error;
      if (result.ok()) Log(Severity::kInfo, "join_token.created", {{"worker_name", name}});
      reply.Finish(ToLinkStatus(result));
    });
  });
  return reactor;
}

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(Core& core,
                                                                const std::string& socket_path,
                                                                AddServices add_services) {
  const size_t slash = socket_path.rfind('/');
  if (slash == std::string::npos || slash == 0) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                       "the admin socket needs an absolute path in a folder of its own");
  }
  RETURN_IF_ERROR(CheckFolder(socket_path.substr(0, slash)));
  RETURN_IF_ERROR(ClearSocket(socket_path));
  std::unique_ptr<AdminServer> admin(new AdminServer(core, socket_path));
  grpc::ServerBuilder builder;
  ApplyServerDefaults(builder);
  using External = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      External::FROM_FD, grpc::InsecureServerCredentials());
  builder.RegisterService(&admin->service_);
  if (add_services) add_services(builder);
  admin->server_ = builder.BuildAndStart();
  if (admin->server_ == nullptr) {
    return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                       "can't serve on the admin socket " + socket_path);
  }
  ASSIGN_OR_RETURN(admin->listener_, PeerListener::Start(socket_path, std::move(acceptor)));
  return admin;
}

AdminServer::~AdminServer() {
  if (server_ == nullptr) return;
  listener_.reset();
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server_->Wait();
  (void)::unlink(socket_path_.c_str());
}

}  // namespace bunker::controller
