// Conversations with guests over the link's tunnels: where the API and the link know each other.
#pragma once

#include <memory>
#include <utility>

#include "controller/api/guest_talk.h"
#include "controller/link/tunnel_broker.h"

namespace bunker::controller {

class TalkAdapter final : public GuestTalkBackend {
 public:
  // `tunnels` must outlive it.
  explicit TalkAdapter(TunnelBroker& tunnels) : tunnels_(tunnels) {}

  void Open(const Bunker& bunker, std::shared_ptr<GuestTalkListener> listener) override {
    tunnels_.OpenTunnel(bunker.worker_id, bunker.id, bunker.incarnation,
                        std::make_shared<Tunnel>(std::move(listener)));
  }

 private:
  static constexpr size_t kHighWaterBytes = 512 * 1024;
  static constexpr size_t kHighWaterFrames = 32;  // half of what the stream takes

  class Talk final : public GuestTalk {
   public:
    explicit Talk(std::shared_ptr<TunnelStream> stream) : stream_(std::move(stream)) {}
    bool Write(link::v1::ControllerTunnelFrame frame) override {
      return stream_->Write(std::move(frame)) && stream_->queued_bytes() < kHighWaterBytes &&
             stream_->queued_messages() < kHighWaterFrames;
    }
    void ReadOn() override { stream_->ReadNext(); }
    void End() override { stream_->Abort(grpc::Status::OK); }

   private:
    const std::shared_ptr<TunnelStream> stream_;
  };

  class Tunnel final : public TunnelListener {
   public:
    explicit Tunnel(std::shared_ptr<GuestTalkListener> listener) : listener_(std::move(listener)) {}
    void OnOpen(std::shared_ptr<TunnelStream> stream) override {
      listener_->OnOpen(std::make_shared<Talk>(std::move(stream)));
    }
    void OnFrame(link::v1::AgentTunnelFrame frame) override {
      listener_->OnFrame(std::move(frame));
    }
    void OnWritten() override { listener_->OnWritable(); }
    void OnClosed(const absl::Status& why) override { listener_->OnClosed(why); }

   private:
    const std::shared_ptr<GuestTalkListener> listener_;
  };

  TunnelBroker& tunnels_;
};

}  // namespace bunker::controller
