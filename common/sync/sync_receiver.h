// The other end of SyncSender: takes frames, says what they change and which rows it holds.
//
// The owner makes the changes durable and only then acks the frame; what it would lose in a crash
// must never have been acked. It restores the versions of durable rows at its start.
//
// Removals that come before `synced` are kept back until it comes: until the peer has told all it
// knew, nothing is deleted.
//
// No I/O, no clock. Not thread-safe: every call comes from the owner's loop.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/base/reason.h"
#include "common/sync/sync_types.h"

namespace bunker {

// What one frame changes. Apply all of it, make it durable, then ack `frame`.
template <typename Row>
struct SyncChanges {
  uint64_t frame = 0;
  bool synced = false;  // true in exactly one frame of a session: nothing else was known then
  std::vector<SyncRow<Row>> rows;
  std::vector<std::string> removed;
  std::vector<SyncRejection> rejections;  // goes into the ack
};

template <typename Row>
class SyncReceiver {
 public:
  // Refuses a row: the reason and the message go back to the sender's user.
  using Admit = absl::FunctionRef<absl::Status(const SyncRow<Row>&)>;

  // `held`: the versions of the rows that survived the last stop.
  explicit SyncReceiver(VersionMap held = {}) : held_(std::move(held)) {}

  // What to tell the peer at the start of a session.
  const VersionMap& held() const { return held_; }

  // What was handed out since the last durable write is lost: these are the rows really held.
  // Ends the session; the next one's hello then tells the truth.
  void ResetHeld(VersionMap held) {
    OnDisconnect();
    held_ = std::move(held);
  }

  // Begins a session, and ends any other. `session` is never used again in this process.
  void OnConnect(uint64_t session) {
    OnDisconnect();
    session_ = session;
  }

  void OnDisconnect() {
    session_.reset();
    last_frame_ = 0;
    synced_ = false;
    kept_back_.clear();
  }

  // Nothing: a frame of another session, or one that was had already; ignore it.
  std::optional<SyncChanges<Row>> OnFrame(uint64_t session, SyncFrame<Row> frame, Admit admit) {
    if (session_ != session || frame.frame != last_frame_ + 1) return std::nullopt;
    last_frame_ = frame.frame;
    SyncChanges<Row> changes;
    changes.frame = frame.frame;
    for (SyncRow<Row>& row : frame.rows) {
      if (const absl::Status status = admit(row); !status.ok()) {
        changes.rejections.push_back(
            {row.name, row.version, ReasonOf(status), std::string(status.message())});
        continue;
      }
      kept_back_.erase(row.name);
      held_[row.name] = row.version;
      changes.rows.push_back(std::move(row));
    }
    for (std::string& name : frame.removed) kept_back_.insert(std::move(name));
    if (frame.synced && !synced_) changes.synced = synced_ = true;
    if (synced_) ReleaseRemovals(changes);
    return changes;
  }

  // True once the peer has told all it knew when this session began.
  bool synced() const { return synced_; }

 private:
  void ReleaseRemovals(SyncChanges<Row>& changes) {
    for (const std::string& name : kept_back_) {
      if (held_.erase(name) > 0) changes.removed.push_back(name);
    }
    kept_back_.clear();
  }

  VersionMap held_;

  // State of the current session.
  std::optional<uint64_t> session_;
  uint64_t last_frame_ = 0;
  bool synced_ = false;
  std::set<std::string> kept_back_;
};

}  // namespace bunker
