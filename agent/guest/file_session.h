// One operation on files, as PID 1 sees it: the socket to the child that does it, and the host's
// credit. Driven by FileServer, from its loop.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "agent/guest/file_peer.h"
#include "agent/guest/outbox.h"
#include "agent/guest/poller.h"
#include "common/wire/session.h"

namespace bunker::guest {

class FileSession {
 public:
  // `socket` is non-blocking. `token` and `token + 1` are its two in `poller`. `outbox` and
  // `poller` outlive this.
  FileSession(uint32_t stream, Fd socket, Poller* poller, Outbox* outbox, uint64_t token);

  // From the loop.
  void OnReadable();
  void OnWritable();
  void OnRoom() { UpdateInterest(); }

  // From the host. False where it broke the credit rules.
  bool OnData(std::string_view data);
  void OnCommit(std::string_view payload);
  bool OnCredit(uint32_t bytes);
  // The child learns it by the end of its socket, removes what it has made so far, and ends.
  void Cancel(std::string_view why);

  // The end was told.
  bool finished() const { return finished_; }

 private:
  struct Waiting {
    FilePacket type;
    std::string payload;
  };

  bool MayRead() const;
  bool SendPacket(FilePacket type, std::string_view payload);
  void Consumed(size_t bytes);
  void UpdateInterest();

  const uint32_t stream_;
  Outbox* const outbox_;
  Watched in_;
  Watched out_;  // the same socket once more: to be told of room alone
  std::deque<Waiting> queue_;  // bounded by the credit
  wire::ReceiveCredit receive_credit_;
  wire::SendCredit send_credit_;
  bool committed_ = false;
  bool finished_ = false;
};

}  // namespace bunker::guest
