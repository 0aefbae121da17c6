// The answer to a unary call that is given later, from the loop. A call that nobody answers (its
// event was dropped because the controller stops) ends as UNAVAILABLE, so that the server's
// shutdown never waits for it.
//
// Thread-safe where one owner at a time uses it.
#pragma once

#include <utility>

#include "grpcpp/grpcpp.h"
#include "grpcpp/support/server_callback.h"

namespace bunker::controller {

class UnaryReply {
 public:
  // `reactor` is the call's default one.
  explicit UnaryReply(grpc::ServerUnaryReactor* reactor) : reactor_(reactor) {}
  UnaryReply(UnaryReply&& other) noexcept : reactor_(std::exchange(other.reactor_, nullptr)) {}
  UnaryReply& operator=(UnaryReply&&) = delete;
  ~UnaryReply() {
    if (reactor_ != nullptr)
      reactor_->Finish({grpc::StatusCode::UNAVAILABLE, "the controller is stopping"});
  }

  // Once. The response message belongs to gRPC again afterwards.
  void Finish(const grpc::Status& status) { std::exchange(reactor_, nullptr)->Finish(status); }

 private:
  grpc::ServerUnaryReactor* reactor_;
};

}  // namespace bunker::controller
