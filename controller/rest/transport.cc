#include "controller/rest/transport.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include <fmt/format.h>

namespace bunker::controller {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

void CloseSocket(tcp::socket& socket) {
  error_code ignored;
  socket.shutdown(tcp::socket::shutdown_both, ignored);
  socket.close(ignored);
}

void ResetSocket(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
}

void ShutdownSocket(tcp::socket& socket) {
  error_code ignored;
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {}

  void Handshake(Callback done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done(error_code(), 0); });
  }
  void ReadSome(char* data, size_t size, Callback done) override {
    socket_.async_read_some(asio::buffer(data, size), std::move(done));
  }
  void Write(const char* data, size_t size, Callback done) override {
    asio::async_write(socket_, asio::buffer(data, size), std::move(done));
  }
  void ShutdownSend() override { ShutdownSocket(socket_); }
  void Close() override { CloseSocket(socket_); }
  void Reset() override { ResetSocket(socket_); }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, asio::ssl::context& context)
      : stream_(std::move(socket), context) {}

  void Handshake(Callback done) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [done = std::move(done)](const error_code& ec) { done(ec, 0); });
  }
  void ReadSome(char* data, size_t size, Callback done) override {
    stream_.async_read_some(asio::buffer(data, size), std::move(done));
  }
  void Write(const char* data, size_t size, Callback done) override {
    asio::async_write(stream_, asio::buffer(data, size), std::move(done));
  }
  void ShutdownSend() override { ShutdownSocket(stream_.next_layer()); }
  // Every answer says where it ends, so a truncated stream can't pass for a whole one and the
  // close alert is not worth another round trip.
  void Close() override { CloseSocket(stream_.next_layer()); }
  void Reset() override { ResetSocket(stream_.next_layer()); }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

class PlainFactory final : public TransportFactory {
 public:
  std::unique_ptr<Transport> Make(tcp::socket socket) override {
    return std::make_unique<PlainTransport>(std::move(socket));
  }
};

class TlsFactory final : public TransportFactory {
 public:
  TlsFactory() : context_(asio::ssl::context::tls_server) {}

  absl::Status Load(const std::string& certificate_path, const std::string& key_path) {
    error_code ec;
    context_.set_options(asio::ssl::context::default_workarounds |
                             asio::ssl::context::no_sslv2 | asio::ssl::context::no_sslv3 |
                             asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1 |
                             SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF, ec);
    if (!ec) context_.use_certificate_chain_file(certificate_path, ec);
    if (ec) {
      return absl::InvalidArgumentError(
          fmt::format("the TLS certificate {}: {}", certificate_path, ec.message()));
    }
    context_.use_private_key_file(key_path, asio::ssl::context::pem, ec);
    if (!ec && SSL_CTX_check_private_key(context_.native_handle()) != 1)
      return absl::InvalidArgumentError(
          fmt::format("the TLS key {} does not belong to {}", key_path, certificate_path));
    if (ec)
      return absl::InvalidArgumentError(fmt::format("the TLS key {}: {}", key_path, ec.message()));
    return absl::OkStatus();
  }

  std::unique_ptr<Transport> Make(tcp::socket socket) override {
    return std::make_unique<TlsTransport>(std::move(socket), context_);
  }

 private:
  asio::ssl::context context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TransportFactory>> MakeTransportFactory(
    const std::string& certificate_path, const std::string& key_path) {
  if (certificate_path.empty() != key_path.empty())
    return absl::InvalidArgumentError("TLS needs both a certificate and a key; name both or none");
  if (certificate_path.empty()) return std::make_unique<PlainFactory>();
  auto factory = std::make_unique<TlsFactory>();
  const absl::Status loaded = factory->Load(certificate_path, key_path);
  if (!loaded.ok()) return loaded;
  return factory;
}

}  // namespace bunker::controller
