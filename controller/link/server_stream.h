// One bidirectional stream of the server over gRPC's callback API: a bounded queue of writes with
// one under way, and one read at a time, begun when the owner asks for it, so that a peer can't
// fill the controller's memory. It holds no state of the conversation.
//
// Thread-safe. Events run on gRPC's few threads: they only post or do what takes no time. The
// object keeps itself alive until on_done has run. When the peer goes, the stream ends by itself;
// else the owner must Finish() or Abort() it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "common/base/mutex.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/server_callback.h"

namespace bunker::controller {

template <typename In, typename Out>
class ServerStream : private grpc::ServerBidiReactor<In, Out> {
 public:
  using Reactor = grpc::ServerBidiReactor<In, Out>;

  struct Events {
    std::function<void(In)> on_read;        // then nothing until ReadNext()
    std::function<bool(const In&)> is_noted;  // true: no on_read, the next is read; may be empty
    std::function<void()> on_written;       // a write left the queue; may be empty
    std::function<void(bool broken)> on_end;  // at most once: the peer sends no more
    std::function<void()> on_done;          // last, exactly once; may be empty
  };

  static std::shared_ptr<ServerStream> Create(grpc::CallbackServerContext* context,
                                              size_t max_queued, Events events) {
    auto stream = std::shared_ptr<ServerStream>(
        new ServerStream(context, max_queued, std::move(events)));
    stream->self_ = stream;
    return stream;
  }

  // What the service's method returns to gRPC.
  Reactor* reactor() { return this; }

  // False: the queue is full (nothing happened), or the stream ends.
  bool Write(Out message) {
    MutexLock lock(mutex_);
    if (finish_wanted_ || broken_ || queue_.size() >= max_queued_) return false;
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) this->StartWrite(&queue_.front());
    return true;
  }

  void ReadNext() {
    MutexLock lock(mutex_);
    if (reading_ || finished_ || end_told_) return;
    reading_ = true;
    this->StartRead(&in_);
  }

  // Ends the stream with `status` once the queue has left. A peer that doesn't read keeps it
  // open: Abort() ends that.
  void Finish(grpc::Status status) {
    MutexLock lock(mutex_);
    if (finish_wanted_) return;
    finish_wanted_ = true;
    status_ = std::move(status);
    if (queue_.empty()) FinishLocked();
  }

  // Ends it now; what is queued is lost, and the peer may see CANCELLED in place of `status`.
  void Abort(grpc::Status status) {
    MutexLock lock(mutex_);
    if (!finish_wanted_) status_ = std::move(status);
    finish_wanted_ = true;
    if (finished_) return;
    if (!queue_.empty()) context_->TryCancel();
    FinishLocked();
  }

  // The peer sends no more; on_end has run or is about to.
  bool ended() {
    MutexLock lock(mutex_);
    return end_told_;
  }

  size_t queued_messages() {
    MutexLock lock(mutex_);
    return queue_.size();
  }

  size_t queued_bytes() {
    MutexLock lock(mutex_);
    return queued_bytes_;
  }

 private:
  ServerStream(grpc::CallbackServerContext* context, size_t max_queued, Events events)
      : context_(context), max_queued_(max_queued), events_(std::move(events)) {}

  void FinishLocked() {
    if (finished_) return;
    finished_ = true;
    grpc::ServerBidiReactor<In, Out>::Finish(status_);
  }

  void OnReadDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      reading_ = false;
    }
    if (!ok) {
      TellEnd(false);
      Finish(grpc::Status::OK);
      return;
    }
    if (events_.is_noted && events_.is_noted(in_)) return ReadNext();
    events_.on_read(std::move(in_));
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      queued_bytes_ -= queue_.front().ByteSizeLong();
      queue_.pop_front();
      if (!ok) broken_ = true;
      if (finished_) {
        // Nothing may start any more.
      } else if (!queue_.empty() && !broken_) {
        this->StartWrite(&queue_.front());
      } else if (finish_wanted_) {
        FinishLocked();
      }
    }
    if (!ok) return OnCancel();
    if (events_.on_written) events_.on_written();
  }

  void OnCancel() override {
    TellEnd(true);
    Abort(grpc::Status::CANCELLED);
  }

  void TellEnd(bool broken) {
    {
      MutexLock lock(mutex_);
      if (std::exchange(end_told_, true)) return;
      if (broken) broken_ = true;
    }
    events_.on_end(broken);
  }

  void OnDone() override {
    const std::shared_ptr<ServerStream> self = std::move(self_);
    const auto on_done = std::move(events_.on_done);
    events_ = {};  // what they hold may hold this stream
    if (on_done) on_done();
  }

  // Constant after construction.
  grpc::CallbackServerContext* const context_;  // gRPC's; lives until OnDone
  const size_t max_queued_;
  Events events_;

  In in_;  // belongs to gRPC while reading_
  std::shared_ptr<ServerStream> self_;

  Mutex mutex_;
  std::deque<Out> queue_;  // the front is being written; a deque doesn't move it
  size_t queued_bytes_ = 0;
  grpc::Status status_;
  bool reading_ = false;
  bool end_told_ = false;
  bool broken_ = false;
  bool finish_wanted_ = false;
  bool finished_ = false;
};

}  // namespace bunker::controller
