// Accepts on the admin socket and looks who is there: connections of root and of this process's own
// user go to gRPC, others are closed. The socket's mode and its folder's keep strangers out
// already; this holds where a mode was changed by hand, or a descriptor was passed on.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"
#include "grpcpp/grpcpp.h"

namespace bunker::controller {

class PeerListener {
 public:
  using Acceptor = grpc::experimental::ExternalConnectionAcceptor;

  // Binds `path` (mode 0600) and listens. `acceptor`: of a server that has been started.
  static absl::StatusOr<std::unique_ptr<PeerListener>> Start(const std::string& path,
                                                             std::unique_ptr<Acceptor> acceptor);
  // Stops accepting. Before the server's shutdown. Blocking, off the loop.
  ~PeerListener();
  PeerListener(const PeerListener&) = delete;
  PeerListener& operator=(const PeerListener&) = delete;

 private:
  PeerListener(UniqueFd listener, UniqueFd wake, std::unique_ptr<Acceptor> acceptor);
  void Work();
  void AcceptOne();

  const UniqueFd listener_;
  const UniqueFd wake_;
  const std::unique_ptr<Acceptor> acceptor_;
  std::thread thread_;
};

}  // namespace bunker::controller
