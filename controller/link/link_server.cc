#include "controller/link/link_server.h"

namespace bunker::controller {

LinkServer::LinkServer(Core& core, Options options)
    : tunnels_(core.loop(), options.tunnels,
               [this](const std::string& worker_id, const link::v1::OpenTunnel& request) {
                 return sessions_.SendOpenTunnel(worker_id, request);
               }),
      sessions_(core, options.sessions,
                [this](const std::string& worker_id) { tunnels_.AskAgain(worker_id); }),
      service_(core, sessions_, tunnels_, options.keys) {}

}  // namespace bunker::controller
