// One byte stream to a client, plain or TLS, behind virtual calls: the templates of Asio and
// OpenSSL are instantiated in one translation unit, and sessions are compiled once.
//
// Not thread-safe: all calls and callbacks on the connection's I/O thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace bunker::controller {

class Transport {
 public:
  using Callback = std::function<void(const boost::system::error_code&, size_t)>;
  virtual ~Transport() = default;
  // A no-op for plain streams, but the callback still comes later.
  virtual void Handshake(Callback done) = 0;
  virtual void ReadSome(char* data, size_t size, Callback done) = 0;
  // All of it, or an error.
  virtual void Write(const char* data, size_t size, Callback done) = 0;
  // Says that nothing more will come; reading goes on.
  virtual void ShutdownSend() = 0;
  // Ends both directions at once; pending callbacks get an error.
  virtual void Close() = 0;
  // The same, so that the other side sees an error and not an end.
  virtual void Reset() = 0;
};

// Makes transports of one listener; holds the TLS context where there is one.
class TransportFactory {
 public:
  virtual ~TransportFactory() = default;
  virtual std::unique_ptr<Transport> Make(boost::asio::ip::tcp::socket socket) = 0;
};

// Plain where both paths are empty; else TLS 1.2 or newer with the PEM chain and key. The files'
// errors are returned.
absl::StatusOr<std::unique_ptr<TransportFactory>> MakeTransportFactory(
    const std::string& certificate_path, const std::string& key_path);

}  // namespace bunker::controller
