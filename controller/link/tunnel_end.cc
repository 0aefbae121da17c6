#include "controller/link/tunnel_end.h"

#include <utility>

#include "common/base/reason.h"
#include "controller/link/grpc_status.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxQueuedFrames = 64;
constexpr absl::Duration kHelloTimeout = absl::Seconds(10);

absl::Status Broken() {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the connection to the worker broke while the command ran, so its result is "
                     "not known; look at the bunker before running the command again");
}

}  // namespace

std::shared_ptr<TunnelStream> TunnelEnd::Open(grpc::CallbackServerContext* context,
                                              std::string credential_sha256) {
  const auto self = shared_from_this();
  TunnelStream::Events events;
  events.on_read = [self](link::v1::AgentTunnelFrame frame) { self->OnFrame(std::move(frame)); };
  events.on_written = [self] {
    if (const auto listener = self->listener()) listener->OnWritten();
  };
  events.on_end = [self](bool broken) {
    MutexLock lock(self->mutex_);
    self->broken_ = broken;
  };
  events.on_done = [self] { self->OnDone(); };
  auto stream = TunnelStream::Create(context, kMaxQueuedFrames, std::move(events));
  stream_ = stream;
  core_.Post([self, stream, sha = std::move(credential_sha256)](Engine& engine, Turn& turn) {
    const auto worker = engine.AuthenticateWorker(sha);
    if (!worker.ok()) {
      turn.AfterCommit([stream, error = worker.status()](const absl::Status&) {
        stream->Abort(ToLinkStatus(error));
      });
      return;
    }
    self->worker_id_ = (*worker)->id;
    self->core_.loop().AddTimer(kHelloTimeout, [self, stream] {
      if (self->listener() == nullptr)
        stream->Abort({grpc::StatusCode::DEADLINE_EXCEEDED, "the tunnel was not named"});
    });
    stream->ReadNext();
  });
  return stream;
}

std::shared_ptr<TunnelListener> TunnelEnd::listener() {
  MutexLock lock(mutex_);
  return listener_;
}

void TunnelEnd::OnFrame(link::v1::AgentTunnelFrame frame) {
  if (const auto known = listener()) return known->OnFrame(std::move(frame));
  const auto stream = stream_.lock();
  if (stream == nullptr) return;
  if (!frame.has_hello()) {
    stream->Abort({grpc::StatusCode::FAILED_PRECONDITION, "the first frame names the tunnel"});
    return;
  }
  core_.Post([self = shared_from_this(), id = frame.hello().tunnel_id()](Engine&, Turn&) {
    self->OnHello(id);
  });
}

void TunnelEnd::OnHello(const std::string& tunnel_id) {
  const auto stream = stream_.lock();
  if (stream == nullptr) return;
  const auto found = tunnels_.Claim(worker_id_, tunnel_id);
  if (found == nullptr) {
    stream->Abort({grpc::StatusCode::NOT_FOUND, "nobody waits for this tunnel any more"});
    return;
  }
  bool done = false;
  {
    MutexLock lock(mutex_);
    listener_ = found;
    done = done_;
  }
  if (done) return found->OnClosed(Broken());
  found->OnOpen(stream);
}

void TunnelEnd::OnDone() {
  std::shared_ptr<TunnelListener> told;
  bool broken = false;
  {
    MutexLock lock(mutex_);
    done_ = true;
    told = std::move(listener_);
    broken = broken_;
  }
  if (told != nullptr) told->OnClosed(broken ? Broken() : absl::OkStatus());
}

}  // namespace bunker::controller
