// A bidirectional stream to the controller over gRPC's callback API, with a bounded queue of
// writes and one read at a time: the next message is read only when the owner asks for it, so
// that a fast peer can't fill the owner's memory.
//
// Thread-safe. Events run on gRPC's few threads: they only post to a loop. The object keeps itself
// alive until on_done has run.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "common/base/mutex.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/client_callback.h"

namespace bunker::agent {

template <typename Out, typename In>
class ClientStream : private grpc::ClientBidiReactor<Out, In> {
 public:
  using Reactor = grpc::ClientBidiReactor<Out, In>;

  struct Events {
    std::function<void(In)> on_read;             // then nothing until ReadNext()
    std::function<void()> on_written;            // a write left the queue
    std::function<void(grpc::Status)> on_done;   // last, exactly once
  };

  static std::shared_ptr<ClientStream> Create(size_t max_queued, Events events) {
    return std::shared_ptr<ClientStream>(new ClientStream(max_queued, std::move(events)));
  }

  // `bind` starts the call on its stub: stub.async()->Method(context, reactor). Once. The first
  // message is read without being asked for.
  void Start(const std::shared_ptr<ClientStream>& self,
             const std::function<void(grpc::ClientContext*, Reactor*)>& bind) {
    self_ = self;
    bind(&context_, this);
    this->AddHold();  // writes and reads start outside of reactions
    reading_ = true;
    this->StartRead(&in_);
    this->StartCall();
  }

  // Before Start() only.
  grpc::ClientContext& context() { return context_; }

  // False: the stream has ended, or its queue is full, which ends it.
  bool Write(Out message) {
    MutexLock lock(mutex_);
    if (closed_ || writes_done_) return false;
    if (queue_.size() >= max_queued_) {
      CloseLocked();
      return false;
    }
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) this->StartWrite(&queue_.front());
    return true;
  }

  // No more writes after those queued; the peer may still write.
  void WritesDone() {
    MutexLock lock(mutex_);
    if (closed_ || writes_done_) return;
    writes_done_ = true;
    if (queue_.empty()) this->StartWritesDone();
  }

  void ReadNext() {
    MutexLock lock(mutex_);
    if (reading_) return;
    if (closed_) {
      ReleaseHold();
      return;
    }
    reading_ = true;
    this->StartRead(&in_);
  }

  // Ends the stream from this side; on_done follows.
  void Cancel() {
    MutexLock lock(mutex_);
    CloseLocked();
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
  ClientStream(size_t max_queued, Events events)
      : max_queued_(max_queued), events_(std::move(events)) {}

  void CloseLocked() {
    closed_ = true;
    context_.TryCancel();
    // With a read under way its failure releases the hold.
    if (!reading_) ReleaseHold();
  }

  // on_done comes only after this.
  void ReleaseHold() {
    if (hold_released_) return;
    hold_released_ = true;
    this->RemoveHold();
  }

  void OnReadDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      reading_ = false;
      if (!ok) {
        closed_ = true;
        ReleaseHold();
        return;
      }
    }
    events_.on_read(std::move(in_));
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      queued_bytes_ -= queue_.front().ByteSizeLong();
      queue_.pop_front();
      if (!ok) {
        CloseLocked();
      } else if (!closed_ && !queue_.empty()) {
        this->StartWrite(&queue_.front());
      } else if (!closed_ && writes_done_) {
        this->StartWritesDone();
      }
    }
    if (events_.on_written) events_.on_written();
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<ClientStream> self = std::move(self_);
    const auto on_done = std::move(events_.on_done);
    events_ = {};  // what they hold may hold this stream
    on_done(status);
  }

  // Constant after construction.
  const size_t max_queued_;
  Events events_;

  grpc::ClientContext context_;
  In in_;  // belongs to gRPC while reading_
  std::shared_ptr<ClientStream> self_;

  Mutex mutex_;
  std::deque<Out> queue_;  // the front is being written; a deque doesn't move it
  size_t queued_bytes_ = 0;
  bool reading_ = false;
  bool writes_done_ = false;
  bool closed_ = false;  // no more reads or writes may start
  bool hold_released_ = false;
};

}  // namespace bunker::agent
