#include "controller/rest/http_server.h"

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "common/base/log.h"
#include "controller/rest/http_session.h"
#include "controller/rest/transport.h"

namespace bunker::controller {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct HttpServer::Impl {
  explicit Impl(const HttpServerOptions& options, HttpHandler* handler)
      : io(std::make_shared<asio::io_context>(1)), acceptor(*io), backoff(*io), grace_timer(*io),
        work(asio::make_work_guard(*io)), shared(std::make_shared<HttpShared>()) {
    shared->io = io;
    shared->handler = handler;
    shared->limits = options.limits;
  }

  absl::Status Listen(const HttpServerOptions& options);
  void Accept();
  void OnAccepted(tcp::socket socket, const tcp::endpoint& peer);
  void BeginStop(absl::Duration grace);
  void CloseAll();
  std::vector<std::shared_ptr<HttpSession>> Sessions() const;

  const std::shared_ptr<asio::io_context> io;
  tcp::acceptor acceptor;
  asio::steady_timer backoff;
  asio::steady_timer grace_timer;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  const std::shared_ptr<HttpShared> shared;
  std::unique_ptr<TransportFactory> factory;
  uint16_t bound_port = 0;
  std::atomic<size_t> connections{0};
  std::map<std::string, size_t> per_ip;
  uint64_t next_session = 0;
  std::map<uint64_t, std::weak_ptr<HttpSession>> sessions;
  bool warned_full = false;
  std::thread thread;
};

absl::Status HttpServer::Impl::Listen(const HttpServerOptions& options) {
  const auto failed = [&options](std::string_view what, const error_code& ec) {
    return absl::UnavailableError(
        fmt::format("REST on {}:{}: {}: {}; choose another address or end what uses it",
                    options.host, options.port, what, ec.message()));
  };
  error_code ec;
  const auto address = asio::ip::make_address(options.host, ec);
  if (ec) return failed("not an IP address", ec);
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), ec);
  if (ec) return failed("open", ec);
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  acceptor.bind(endpoint, ec);
  if (ec) return failed("bind", ec);
  acceptor.listen(1024, ec);
  if (ec) return failed("listen", ec);
  acceptor.non_blocking(true, ec);
  bound_port = acceptor.local_endpoint(ec).port();
  return absl::OkStatus();
}

void HttpServer::Impl::Accept() {
  acceptor.async_accept([this](const error_code& ec, tcp::socket socket) {
    if (!acceptor.is_open()) return;
    if (ec) {
      // Most likely out of descriptors: accepting at once again would spin, never accepting again
      // would be the end of the listener.
      Log(Severity::kWarning, "http.accept_failed", {{"error", ec.message()}});
      backoff.expires_after(absl::ToChronoMilliseconds(shared->limits.accept_backoff));
      backoff.async_wait([this](const error_code& cancelled) {
        if (!cancelled) Accept();
      });
      return;
    }
    error_code peer_error;
    const tcp::endpoint peer = socket.remote_endpoint(peer_error);
    if (!peer_error) OnAccepted(std::move(socket), peer);
    Accept();
  });
}

void HttpServer::Impl::OnAccepted(tcp::socket socket, const tcp::endpoint& peer) {
  const std::string ip = peer.address().to_string();
  const size_t from_ip = per_ip.count(ip) > 0 ? per_ip[ip] : 0;
  const bool ip_full =
      !peer.address().is_loopback() && from_ip >= shared->limits.max_connections_per_ip;
  if (connections >= shared->limits.max_connections || ip_full) {
    if (!std::exchange(warned_full, true))
      Log(Severity::kWarning, "http.connections_full", {{"ip", ip}, {"open", connections.load()}});
    return;  // the socket closes
  }
  warned_full = false;
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const uint64_t id = ++next_session;
  ++connections;
  ++per_ip[ip];
  auto session = std::make_shared<HttpSession>(
      shared, factory->Make(std::move(socket)), ip, [this, id, ip] {
        --connections;
        if (--per_ip[ip] == 0) per_ip.erase(ip);
        sessions.erase(id);
      });
  sessions[id] = session;
  session->Start();
}

std::vector<std::shared_ptr<HttpSession>> HttpServer::Impl::Sessions() const {
  std::vector<std::shared_ptr<HttpSession>> alive;
  for (const auto& [id, weak] : sessions) {
    if (auto session = weak.lock()) alive.push_back(std::move(session));
  }
  return alive;
}

void HttpServer::Impl::BeginStop(absl::Duration grace) {
  error_code ignored;
  acceptor.close(ignored);
  backoff.cancel();
  shared->draining = true;
  for (const auto& session : Sessions()) session->Drain();
  grace_timer.expires_after(absl::ToChronoMilliseconds(grace));
  grace_timer.async_wait([this](const error_code&) { CloseAll(); });
  if (sessions.empty()) grace_timer.cancel();
  work.reset();
}

void HttpServer::Impl::CloseAll() {
  for (const auto& session : Sessions()) session->Close();
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              HttpHandler* handler) {
  auto impl = std::make_unique<Impl>(options, handler);
  auto factory = MakeTransportFactory(options.tls_certificate, options.tls_key);
  if (!factory.ok()) return factory.status();
  impl->factory = *std::move(factory);
  if (const absl::Status listening = impl->Listen(options); !listening.ok()) return listening;
  impl->Accept();
  Impl* const running = impl.get();
  impl->thread = std::thread([running] { running->io->run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

void HttpServer::Stop(absl::Duration grace) {
  if (!impl_->thread.joinable()) return;
  asio::post(*impl_->io, [impl = impl_.get(), grace] { impl->BeginStop(grace); });
  impl_->thread.join();
}

HttpServer::~HttpServer() { Stop(absl::ZeroDuration()); }

uint16_t HttpServer::port() const { return impl_->bound_port; }
size_t HttpServer::connection_count() const { return impl_->connections; }

}  // namespace bunker::controller
