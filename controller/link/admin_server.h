// The admin service, on a unix socket that only this host's root (or the controller's own user)
// can reach: a gRPC server of its own, so that nothing of it is ever on the network.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bunker/v1/admin.grpc.pb.h"
#include "controller/engine/core.h"
#include "controller/link/peer_listener.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

class AdminService final : public v1::Admin::CallbackService {
 public:
  // `core` must outlive the server's last call.
  explicit AdminService(Core& core) : core_(core) {}

  grpc::ServerUnaryReactor* CreateJoinToken(grpc::CallbackServerContext* context,
                                            const v1::CreateJoinTokenRequest* request,
                                            v1::CreateJoinTokenResponse* response) override;

 private:
  Core& core_;
};

class AdminServer {
 public:
  // Listens on `socket_path`. Its folder must belong to this process's user and be closed to
  // others' writing; it is made with mode 0700 where it is not there. A socket that a dead
  // controller left is replaced, a living one's is refused. `add_services` may register more; they
  // must outlive the server.
  using AddServices = std::function<void(grpc::ServerBuilder&)>;
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(Core& core,
                                                            const std::string& socket_path,
                                                            AddServices add_services = nullptr);
  // Blocking, off the loop: Shutdown() and waits for the calls under way.
  ~AdminServer();
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

 private:
  AdminServer(Core& core, std::string socket_path)
      : socket_path_(std::move(socket_path)), service_(core) {}

  const std::string socket_path_;
  AdminService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<PeerListener> listener_;
};

}  // namespace bunker::controller
