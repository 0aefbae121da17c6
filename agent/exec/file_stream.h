// The agent's view of one operation on a guest's files: credit both ways, and a check of what the
// guest says. No I/O, no lock: ChannelCore guards it.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/wire/session.h"

namespace bunker::agent {

class FileStream {
 public:
  // kOk: deliver it. Else the guest broke the rules, in these words.
  absl::Status OnHead(std::string_view payload, guest::v1::FileHead* head);
  absl::Status OnData(std::string_view data);
  absl::Status OnCredit(uint32_t bytes);

  // `bytes` of data were taken. What to grant the guest now; 0: nothing.
  uint32_t Ack(size_t bytes);

  // How much may be sent.
  uint32_t room() const { return committed_ ? 0 : send_credit_.available(); }
  void Spend(uint32_t bytes) { send_credit_.Spend(bytes); }
  void Commit() { committed_ = true; }
  bool committed() const { return committed_; }

 private:
  wire::ReceiveCredit receive_credit_;
  wire::SendCredit send_credit_;
  bool head_seen_ = false;
  bool committed_ = false;
};

// What the guest says of a failure as the error that the caller gets. REQUIRES: kind is not DONE.
absl::Status FileEndToStatus(const guest::v1::FileEnd& end);

}  // namespace bunker::agent
