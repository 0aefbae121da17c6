// ChannelCore without its thread: a guest's bytes go in and the callers' calls are made in an order
// that is given, so that an input does the same each time.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/exec/channel_core.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/unique_fd.h"
#include "common/wire/session.h"

namespace bunker::agent {

class SteppedChannel {
 public:
  static constexpr uint64_t kEpoch = 0x1122334455667788;

  SteppedChannel() : core_({"fuzz", nullptr, absl::Seconds(30)}) {
    int ends[2];
    BUNKER_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    mine_ = UniqueFd(ends[0]);
    guests_ = UniqueFd(ends[1]);
    NewSession();
  }
  ~SteppedChannel() {
    core_.LoseSession(ReasonError(absl::StatusCode::kCancelled, "CANCELLED", "the end"));
  }

  ChannelCore& core() { return core_; }
  // Whether the guest has kept the rules in this session.
  bool alive() const { return alive_; }
  bool ready() const { return session_->ready(); }

  // As after a new connection: the guest has to shake hands first.
  void NewSession() {
    TakeAll();
    session_.emplace(kEpoch);
    core_.last_progress_ = std::chrono::steady_clock::now();
    MutexLock lock(core_.mutex_);
    core_.epoch_ = kEpoch;
    alive_ = true;
  }

  // What the guest says. OK: it kept the rules; else the session is over, and everybody was told.
  absl::Status Say(std::string_view bytes) {
    while (alive_ && !bytes.empty()) {
      const ssize_t sent = send(guests_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
      const absl::Status status = core_.ReadSome(mine_.get(), &*session_);
      core_.ExpireExecs();
      if (!status.ok()) return End(status);
    }
    while (alive_ && Waits()) {
      if (absl::Status status = core_.ReadSome(mine_.get(), &*session_); !status.ok())
        return End(status);
    }
    return absl::OkStatus();
  }

  // The channel writes what the socket takes. The guest has read nothing yet.
  void Write() {
    if (!alive_ || !session_->ready()) return;
    const absl::Status status = core_.WriteSome(mine_.get(), true);
    BUNKER_CHECK(status.ok());  // nothing stalls this soon
  }
  // The guest reads: whole frames of this session.
  std::string Take() {
    std::string taken;
    char buffer[65536];
    ssize_t got;
    while ((got = read(guests_.get(), buffer, sizeof(buffer))) > 0)
      taken.append(buffer, static_cast<size_t>(got));
    return taken;
  }

  size_t unsent_bytes() {
    MutexLock lock(core_.mutex_);
    size_t queued = core_.out_.size() - core_.out_written_;
    for (const std::string& frame : core_.queue_) queued += frame.size();
    BUNKER_CHECK(queued == core_.unsent_bytes_);
    return queued;
  }
  size_t streams() {
    MutexLock lock(core_.mutex_);
    return core_.execs_.size() + core_.files_.size();
  }

 private:
  bool Waits() {
    char byte;
    return recv(mine_.get(), &byte, 1, MSG_PEEK) == 1;
  }
  void TakeAll() {
    char buffer[65536];
    while (read(mine_.get(), buffer, sizeof(buffer)) > 0) {
    }
    Take();
  }
  absl::Status End(const absl::Status& why) {
    alive_ = false;
    core_.LoseSession(why);
    return why;
  }

  ChannelCore core_;
  UniqueFd mine_, guests_;
  std::optional<wire::HostSession> session_;
  bool alive_ = false;
};

}  // namespace bunker::agent
