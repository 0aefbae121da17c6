// Replicates one keyed table to one peer over an ordered stream that may break at any moment.
//
// The sender remembers only which names the peer may not have ("dirty"); the rows stay with
// their owner and are looked up when a frame is filled. So memory is bounded by names, not by
// the rate of change, and a row that changed ten times while a frame was in flight is sent once.
// One frame is in flight; the next one is filled after its ack. A session begins with the versions
// that the peer holds: what differs is dirty, and so is every name that the peer holds but the
// owner no longer has. Nothing else is remembered across sessions.
//
// No I/O, no clock. Not thread-safe: every call comes from the owner's loop.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "common/sync/sync_types.h"

namespace bunker {

template <typename Row>
class SyncSender {
 public:
  // The current row of that name, or nothing where there is none.
  using Lookup = std::function<std::optional<SyncRow<Row>>(const std::string& name)>;
  // The bytes that a row takes in a frame; an estimate is enough.
  using SizeOf = std::function<size_t(const Row&)>;

  SyncSender(SyncLimits limits, Lookup lookup, SizeOf size_of)
      : limits_(limits), lookup_(std::move(lookup)), size_of_(std::move(size_of)) {}

  // Begins a session, and ends any other. `session` is never used again in this process.
  // `held` is what the peer says it has, `current` what the owner has.
  void OnConnect(uint64_t session, const VersionMap& held, const VersionMap& current) {
    OnDisconnect();
    session_ = session;
    for (const auto& [name, version] : current) {
      const auto it = held.find(name);
      if (it == held.end() || it->second != version) MarkChanged(name);
    }
    for (const auto& [name, version] : held) {
      if (current.count(name) == 0) MarkChanged(name);
    }
    initial_left_ = queue_.size();
  }

  void OnDisconnect() {
    session_.reset();
    dirty_.clear();
    queue_.clear();
    last_frame_ = 0;
    in_flight_ = false;
    synced_sent_ = false;
    initial_left_ = 0;
  }

  // The row of that name was added, replaced or removed. Without a session this is a no-op: the
  // next one compares everything.
  void MarkChanged(const std::string& name) {
    if (session_ && dirty_.insert(name).second) queue_.push_back(name);
  }

  // The next frame to send, or nothing: no session, one in flight, or nothing to tell.
  std::optional<SyncFrame<Row>> NextFrame() {
    if (!session_ || in_flight_ || (queue_.empty() && synced_sent_)) return std::nullopt;
    SyncFrame<Row> frame;
    frame.frame = ++last_frame_;
    size_t bytes = 0;
    while (!queue_.empty() && frame.rows.size() + frame.removed.size() < limits_.max_rows) {
      std::optional<SyncRow<Row>> row = lookup_(queue_.front());
      const size_t size = queue_.front().size() + (row ? size_of_(row->row) : 0);
      if (bytes > 0 && bytes + size > limits_.max_bytes) break;
      bytes += size;
      if (row) {
        frame.rows.push_back(*std::move(row));
      } else {
        frame.removed.push_back(queue_.front());
      }
      Pop();
    }
    // First in, first out: what was known at the start leaves before what changed since, so that
    // `synced` comes however fast the table changes.
    if (initial_left_ == 0 && !synced_sent_) frame.synced = synced_sent_ = true;
    in_flight_ = true;
    return frame;
  }

  // False: not the ack that is waited for. One of an older session is to be ignored; one of this
  // session is a broken peer, and the session should end.
  bool OnAck(uint64_t session, uint64_t frame) {
    if (session_ != session || !in_flight_ || frame != last_frame_) return false;
    in_flight_ = false;
    return true;
  }

  bool connected() const { return session_.has_value(); }
  // Everything that is known was sent in this session and acked.
  bool idle() const { return connected() && !in_flight_ && queue_.empty() && synced_sent_; }

 private:
  void Pop() {
    dirty_.erase(queue_.front());
    queue_.pop_front();
    if (initial_left_ > 0) --initial_left_;
  }

  // Constant after construction.
  const SyncLimits limits_;
  const Lookup lookup_;
  const SizeOf size_of_;

  // State of the current session.
  std::optional<uint64_t> session_;
  std::set<std::string> dirty_;    // the names in queue_
  std::deque<std::string> queue_;  // in the order in which they became dirty
  size_t initial_left_ = 0;        // so many at the front of queue_ were dirty at the start
  uint64_t last_frame_ = 0;
  bool in_flight_ = false;
  bool synced_sent_ = false;
};

}  // namespace bunker
