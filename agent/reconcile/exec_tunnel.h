// One command, reader of a process or question about processes, from the controller's tunnel to
// the guest's channel and back: credit in both directions, so that a slow reader stops the guest's
// writer and nothing piles up here.
//
// On the loop only. Lives in Parts::live until its tunnel is closed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "agent/exec/guest_channel.h"
#include "agent/link/tunnel.h"
#include "agent/reconcile/bunker_runner.h"
#include "common/loop/event_loop.h"
#include "common/proc/deadline.h"

namespace bunker::agent {

class ExecTunnel final : public TunnelHandler, public std::enable_shared_from_this<ExecTunnel> {
 public:
  // What it works with; all must outlive it.
  struct Parts {
    Loop& loop;
    BunkerRunner& bunkers;
    std::set<std::shared_ptr<ExecTunnel>>& live;  // keeps them until their tunnels are closed
  };

  // Serves `tunnel` for that bunker until it ends.
  static void Serve(const Parts& parts, const link::v1::OpenTunnel& request,
                    std::shared_ptr<Tunnel> tunnel);

  void OnExec(const link::v1::ExecStart& start) override;
  void OnProcess(const link::v1::ProcessCall& call) override;
  void OnAttach(const link::v1::ProcessAttach& attach) override;
  void OnLog(const link::v1::LogRead& read) override;
  void OnResize(const link::v1::TerminalSize& size) override;
  void OnStdin(std::string data) override;
  void OnStdinClose() override;
  void OnCancel() override;
  void OnWritable() override;
  void OnClosed(const absl::Status& why) override;

 private:
  ExecTunnel(const Parts& parts, const link::v1::OpenTunnel& request,
             std::shared_ptr<Tunnel> tunnel)
      : parts_(parts),
        bunker_id_(request.bunker_id()),
        incarnation_(request.incarnation()),
        tunnel_(std::move(tunnel)) {}

  // What is asked of the guest, once it answers.
  using Ask = std::function<absl::StatusOr<std::unique_ptr<ExecHandle>>(GuestChannel&,
                                                                        ExecCallbacks)>;

  void FindGuest(absl::Duration timeout);
  void WaitForGuest(const std::shared_ptr<GuestChannel>& channel, const Deadline& deadline);
  void Begin(const std::shared_ptr<GuestChannel>& channel);
  ExecCallbacks Callbacks();
  void PumpStdin();
  void PumpWrite();
  void OnAnswer(const guest::v1::ProcessAnswer& answer);
  void OnWriteTimeout(uint64_t piece);
  void OnOutput(bool is_stderr, const std::string& data);
  void OnExit(const ExecResult& result);
  void OnLogEnd(uint64_t next_offset);
  void Fail(const absl::Status& status);
  // For other threads: runs a task on the loop, if this object is still there then.
  using Task = std::function<void(ExecTunnel&)>;
  using Poster = std::function<void(Task)>;
  Poster MakePoster();

  const Parts parts_;
  const std::string bunker_id_;
  const uint32_t incarnation_;
  const std::shared_ptr<Tunnel> tunnel_;

  Ask ask_;
  bool is_exec_ = false;
  bool is_log_ = false;  // reading it is no activity
  absl::Time began_;
  std::shared_ptr<GuestChannel> channel_;
  std::unique_ptr<ExecHandle> handle_;
  std::string stdin_;           // one chunk, not yet taken by the guest
  bool stdin_waiting_ = false;  // the tunnel waits for StdinTaken()
  bool stdin_closing_ = false;
  size_t unacked_bytes_ = 0;  // output that the tunnel holds above its mark
  // A write to a process's stdin, in pieces: each is asked and answered.
  bool is_write_ = false;
  bool write_allow_root_ = false;
  uint32_t write_pid_ = 0;
  size_t piece_bytes_ = 0;  // under way
  uint64_t piece_ = 0;      // its number
  uint64_t written_bytes_ = 0;
  bool write_timed_out_ = false;
  bool counted_ = false;  // as activity of the bunker
  bool cancelled_ = false;
  bool ended_ = false;  // a result was sent, or nobody waits for one
};

}  // namespace bunker::agent
