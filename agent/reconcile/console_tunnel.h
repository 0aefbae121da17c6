// A reader of a guest's console, at the tunnel's pace. On the loop only. Lives in Parts::live until
// its tunnel is closed.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "agent/link/tunnel.h"
#include "agent/reconcile/bunker_runner.h"
#include "common/loop/event_loop.h"

namespace bunker::agent {

class ConsoleTunnel final : public TunnelHandler,
                            public std::enable_shared_from_this<ConsoleTunnel> {
 public:
  static constexpr absl::Duration kPoll = absl::Milliseconds(500);  // the VMM tells of no news

  // What it works with; all must outlive it.
  struct Parts {
    Loop& loop;
    BunkerRunner& bunkers;
    std::set<std::shared_ptr<ConsoleTunnel>>& live;  // keeps them until their tunnels are closed
  };

  // Serves `tunnel` for that bunker until it ends.
  static void Serve(const Parts& parts, const link::v1::OpenTunnel& request,
                    std::shared_ptr<Tunnel> tunnel);

  void OnLog(const link::v1::LogRead& read) override;
  void OnCancel() override {}
  void OnWritable() override;
  void OnClosed(const absl::Status& why) override;

  void OnExec(const link::v1::ExecStart&) override {}
  void OnStdin(std::string) override {}
  void OnStdinClose() override {}

 private:
  ConsoleTunnel(const Parts& parts, const link::v1::OpenTunnel& request,
                std::shared_ptr<Tunnel> tunnel)
      : parts_(parts),
        bunker_id_(request.bunker_id()),
        incarnation_(request.incarnation()),
        tunnel_(std::move(tunnel)) {}

  void Read();
  void Tell(const ConsoleLog& log);
  void End(const absl::Status& status);

  const Parts parts_;
  const std::string bunker_id_;
  const uint32_t incarnation_;
  const std::shared_ptr<Tunnel> tunnel_;
  bool follow_ = false;
  bool begun_ = false;
  bool waits_for_room_ = false;
  bool ended_ = false;
  uint64_t offset_ = 0;
};

}  // namespace bunker::agent
