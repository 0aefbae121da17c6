#include "agent/reconcile/tunnels.h"

namespace bunker::agent {
namespace {

template <typename Live>
void Close(const Live& live) {
  // Of a copy: each leaves the set as it is closed.
  for (const auto& tunnel : Live(live)) tunnel->OnClosed(absl::CancelledError("the agent stops"));
}

}  // namespace

void Tunnels::Serve(const link::v1::OpenTunnel& request, std::shared_ptr<Tunnel> tunnel) {
  tunnel->ServeBy([this, request, tunnel](const link::v1::ControllerTunnelFrame& first) {
    if (first.has_file()) return FileTunnel::Serve({loop_, bunkers_, files_}, request, tunnel);
    if (first.log().source() == link::v1::LogRead::CONSOLE)
      return ConsoleTunnel::Serve({loop_, bunkers_, consoles_}, request, tunnel);
    ExecTunnel::Serve({loop_, bunkers_, execs_}, request, tunnel);
  });
}

void Tunnels::CloseAll() {
  Close(execs_);
  Close(files_);
  Close(consoles_);
}

}  // namespace bunker::agent
