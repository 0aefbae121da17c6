// One operation on files, from the controller's tunnel to the guest's channel and back: credit in
// both directions, so that a slow reader or writer stops the other end and nothing piles up here.
//
// On the loop only. Lives in Parts::live until its tunnel is closed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "agent/exec/guest_channel.h"
#include "agent/link/tunnel.h"
#include "agent/reconcile/bunker_runner.h"
#include "common/loop/event_loop.h"
#include "common/proc/deadline.h"

namespace bunker::agent {

class FileTunnel final : public TunnelHandler, public std::enable_shared_from_this<FileTunnel> {
 public:
  // What it works with; all must outlive it.
  struct Parts {
    Loop& loop;
    BunkerRunner& bunkers;
    std::set<std::shared_ptr<FileTunnel>>& live;  // keeps them until their tunnels are closed
  };

  // Serves `tunnel` for that bunker until it ends.
  static void Serve(const Parts& parts, const link::v1::OpenTunnel& request,
                    std::shared_ptr<Tunnel> tunnel);

  void OnFile(const link::v1::FileStart& start) override;
  void OnFileCommit(uint64_t size) override;
  void OnStdin(std::string data) override;
  void OnCancel() override;
  void OnWritable() override;
  void OnClosed(const absl::Status& why) override;

  void OnExec(const link::v1::ExecStart&) override {}
  void OnStdinClose() override {}

 private:
  FileTunnel(const Parts& parts, const link::v1::OpenTunnel& request,
             std::shared_ptr<Tunnel> tunnel)
      : parts_(parts),
        bunker_id_(request.bunker_id()),
        incarnation_(request.incarnation()),
        tunnel_(std::move(tunnel)) {}

  void WaitForGuest(const std::shared_ptr<GuestChannel>& channel, const Deadline& deadline);
  void Begin(const std::shared_ptr<GuestChannel>& channel);
  void Pump();
  void OnData(std::string data);
  void OnEnd(const guest::v1::FileEnd& end);
  void Fail(const absl::Status& status);
  // Once; whether this was the first.
  bool End();
  // For other threads: runs a task on the loop, if this object is still there then.
  using Task = std::function<void(FileTunnel&)>;
  using Poster = std::function<void(Task)>;
  Poster MakePoster();

  const Parts parts_;
  const std::string bunker_id_;
  const uint32_t incarnation_;
  const std::shared_ptr<Tunnel> tunnel_;

  guest::v1::FileStart start_;
  std::shared_ptr<GuestChannel> channel_;
  std::unique_ptr<FileHandle> handle_;
  std::string data_;            // one chunk, not yet taken by the guest
  size_t data_taken_ = 0;       // of it
  bool data_waiting_ = false;   // the tunnel waits for StdinTaken()
  size_t unacked_bytes_ = 0;    // data that the tunnel holds above its mark
  bool ended_ = false;          // a result was sent, or nobody waits for one
};

}  // namespace bunker::agent
