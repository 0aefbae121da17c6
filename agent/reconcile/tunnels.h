// The tunnels that are open: who serves each, and their end with the agent's. On the loop only.
#pragma once

#include <memory>
#include <set>

#include "agent/link/tunnel.h"
#include "agent/reconcile/console_tunnel.h"
#include "agent/reconcile/exec_tunnel.h"
#include "agent/reconcile/file_tunnel.h"

namespace bunker::agent {

class Tunnels {
 public:
  // Both outlive this.
  Tunnels(Loop& loop, BunkerRunner& bunkers) : loop_(loop), bunkers_(bunkers) {}

  void Serve(const link::v1::OpenTunnel& request, std::shared_ptr<Tunnel> tunnel);
  // Ends what runs for them, and with it their hold on the guests' channels.
  void CloseAll();

 private:
  Loop& loop_;
  BunkerRunner& bunkers_;
  std::set<std::shared_ptr<ExecTunnel>> execs_;
  std::set<std::shared_ptr<FileTunnel>> files_;
  std::set<std::shared_ptr<ConsoleTunnel>> consoles_;
};

}  // namespace bunker::agent
