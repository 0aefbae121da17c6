// One WebSocket on a connection whose HTTP is over, with Boost.Beast.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <functional>
#include <memory>

#include "controller/rest/http_types.h"
#include "controller/rest/transport.h"

namespace bunker::controller {

// What is left of the HTTP session: its bytes. I/O thread only.
class UpgradedConnection {
 public:
  virtual ~UpgradedConnection() = default;
  // As Transport's; the callback comes later, with an error once the connection is closed.
  virtual void ReadUpgraded(char* data, size_t size, Transport::Callback done) = 0;
  virtual void WriteUpgraded(const char* data, size_t size, Transport::Callback done) = 0;
  virtual void CloseUpgraded() = 0;
};

class UpgradedSocket : public WebSocket {
 public:
  // Once, on the I/O thread: answers 101 and goes on until either side closes.
  virtual void Start(std::shared_ptr<UpgradedConnection> connection) = 0;
};

// `request` asked for it.
std::shared_ptr<UpgradedSocket> MakeWebSocket(std::shared_ptr<boost::asio::io_context> io,
                                              const HttpRequest& request, WebSocketEvents events);

}  // namespace bunker::controller
