// The agent's view of one command in a guest: credit both ways, and a check of everything that the
// guest says. No I/O, no lock: GuestChannel guards it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/exec/exec_types.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/wire/session.h"

namespace bunker::agent {

using SteadyTime = std::chrono::steady_clock::time_point;

class ExecStream {
 public:
  ExecStream(const ExecSpec& spec, SteadyTime now);

  // A data frame. kOk: deliver it. Else the guest broke the rules, in these words.
  absl::Status OnOutput(bool is_stderr, std::string_view data);
  absl::Status OnCredit(uint32_t bytes);
  // Once at most, before any output.
  absl::Status OnStarted();
  // Only of a process that is read.
  absl::Status OnGap(uint64_t bytes);
  // It reads what a process writes that may have begun long ago.
  void ReadsProcess() { reads_process_ = true; }
  // What the guest says of the end, made plausible.
  ExecResult OnExit(const guest::v1::ExecExit& exit, SteadyTime now) const;

  // `bytes` of output were taken by whoever wanted them. What to grant the guest now; 0: nothing.
  uint32_t AckOutput(size_t bytes);

  // How much stdin may be sent.
  uint32_t stdin_room() const { return stdin_closed_ ? 0 : stdin_credit_.available(); }
  void SpendStdin(uint32_t bytes) { stdin_credit_.Spend(bytes); }
  void CloseStdin() { stdin_closed_ = true; }
  bool stdin_closed() const { return stdin_closed_; }

  // Once killed, and after its time-out, the guest has this long to say that it ended.
  void ExpectEnd(SteadyTime now);
  std::optional<SteadyTime> deadline() const { return deadline_; }

 private:
  const uint64_t max_output_bytes_;
  const bool has_timeout_;
  const SteadyTime started_;
  uint64_t forwarded_[2] = {0, 0};
  uint64_t gap_bytes_ = 0;
  wire::ReceiveCredit output_credit_;
  wire::SendCredit stdin_credit_;
  bool stdin_closed_;
  bool reads_process_ = false;
  bool started_told_ = false;
  std::optional<SteadyTime> deadline_;
};

// The guest's refusal as the error that the caller gets.
absl::Status ExecErrorToStatus(const guest::v1::ExecError& error);

// A guest's words, fit for logs and messages: printable ASCII, at most 300 bytes.
std::string CleanGuestText(std::string_view text);

guest::v1::ExecStart ToProto(const ExecSpec& spec);

}  // namespace bunker::agent
