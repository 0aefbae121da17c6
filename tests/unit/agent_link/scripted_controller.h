// A real gRPC server on a port of its own that does what a test tells it: the test is the
// controller.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "tests/support/blocking_queue.h"

namespace bunker::agent {

// One stream, seen from the server. Frames of the agent arrive in `frames`; nothing = it ended.
template <typename In, typename Out>
class ScriptedStream {
 public:
  explicit ScriptedStream(grpc::ServerContext* context, grpc::ServerReaderWriter<Out, In>* stream)
      : context_(context), stream_(stream) {}

  // The service's thread: reads until the end. With `paused` it waits before each read.
  void Serve(const std::string& authorization) {
    authorization_ = authorization;
    In frame;
    while (true) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return !paused_ || ended_; });
        if (ended_) break;
      }
      if (!stream_->Read(&frame)) break;
      frames.Push(frame);
    }
    frames.Push(std::nullopt);
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return ended_; });
  }

  void Write(const Out& frame) { stream_->Write(frame); }
  void Pause(bool paused) {
    std::lock_guard<std::mutex> lock(mutex_);
    paused_ = paused;
    wake_.notify_all();
  }
  // Ends the call; the agent sees OK, or with `cut` a stream that broke.
  void End(bool cut = false) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ended_) return;
    if (cut) context_->TryCancel();
    ended_ = true;
    wake_.notify_all();
  }
  const std::string& authorization() const { return authorization_; }

  test::BlockingQueue<std::optional<In>> frames;

 private:
  grpc::ServerContext* const context_;
  grpc::ServerReaderWriter<Out, In>* const stream_;
  std::string authorization_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ended_ = false;
  bool paused_ = false;
};

using ScriptedSession = ScriptedStream<link::v1::AgentFrame, link::v1::ControllerFrame>;
using ScriptedTunnel = ScriptedStream<link::v1::AgentTunnelFrame, link::v1::ControllerTunnelFrame>;

class ScriptedController final : public link::v1::AgentLink::Service {
 public:
  explicit ScriptedController(std::shared_ptr<grpc::ServerCredentials> credentials =
                                  grpc::InsecureServerCredentials()) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedController() override { Stop(); }

  // Ends everything that is open. Repeatable.
  void Stop() {
    if (server_ == nullptr) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (const auto& session : all_sessions_) session->End(true);
      for (const auto& tunnel : all_tunnels_) tunnel->End(true);
    }
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    server_->Wait();
    server_.reset();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // In the order of their coming; null where none came in time.
  std::shared_ptr<ScriptedSession> NextSession() { return sessions_.Pop().value_or(nullptr); }
  std::shared_ptr<ScriptedTunnel> NextTunnel() { return tunnels_.Pop().value_or(nullptr); }
  size_t waiting_sessions() { return sessions_.size(); }

  grpc::Status Join(grpc::ServerContext*, const link::v1::JoinRequest* request,
                    link::v1::JoinResponse* response) override {
    if (request->token() != "good") return {grpc::StatusCode::UNAUTHENTICATED, "no such token"};
    response->set_worker_id("wrk_1");
    response->set_credential("secret");
    return grpc::Status::OK;
  }

  grpc::Status Connect(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<link::v1::ControllerFrame,
                                                link::v1::AgentFrame>* stream) override {
    auto session = std::make_shared<ScriptedSession>(context, stream);
    return Serve(context, session, all_sessions_, sessions_);
  }

  grpc::Status Tunnel(grpc::ServerContext* context,
                      grpc::ServerReaderWriter<link::v1::ControllerTunnelFrame,
                                               link::v1::AgentTunnelFrame>* stream) override {
    auto tunnel = std::make_shared<ScriptedTunnel>(context, stream);
    return Serve(context, tunnel, all_tunnels_, tunnels_);
  }

 private:
  template <typename Stream>
  grpc::Status Serve(grpc::ServerContext* context, std::shared_ptr<Stream> stream,
                     std::vector<std::shared_ptr<Stream>>& all,
                     test::BlockingQueue<std::shared_ptr<Stream>>& queue) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      all.push_back(stream);
    }
    std::string authorization;
    const auto it = context->client_metadata().find("authorization");
    if (it != context->client_metadata().end())
      authorization.assign(it->second.data(), it->second.size());
    queue.Push(stream);
    stream->Serve(authorization);
    return grpc::Status::OK;
  }

  int port_ = 0;
  std::mutex mutex_;
  std::vector<std::shared_ptr<ScriptedSession>> all_sessions_;
  std::vector<std::shared_ptr<ScriptedTunnel>> all_tunnels_;
  test::BlockingQueue<std::shared_ptr<ScriptedSession>> sessions_;
  test::BlockingQueue<std::shared_ptr<ScriptedTunnel>> tunnels_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace bunker::agent
