#include "tests/unit/common_http/scripted_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/base/log.h"

namespace bunker::http {

std::string Ok(const std::string& body, const std::string& headers) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + headers +
         "\r\n" + body;
}

ScriptedServer::ScriptedServer(Script script) : script_(std::move(script)) {
  listen_fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  BUNKER_CHECK(::bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), length) == 0);
  BUNKER_CHECK(::getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  port_ = ntohs(address.sin_port);
  BUNKER_CHECK(::listen(listen_fd_, 16) == 0);
  thread_ = std::thread([this] { Serve(); });
}

ScriptedServer::ScriptedServer(Script script, const std::string& unix_path)
    : script_(std::move(script)) {
  listen_fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  BUNKER_CHECK(unix_path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, unix_path.data(), unix_path.size());
  BUNKER_CHECK(::bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  BUNKER_CHECK(::listen(listen_fd_, 16) == 0);
  thread_ = std::thread([this] { Serve(); });
}

ScriptedServer::~ScriptedServer() {
  ::shutdown(listen_fd_, SHUT_RDWR);
  thread_.join();
  ::close(listen_fd_);
  for (const int fd : open_) ::close(fd);
}

std::vector<std::string> ScriptedServer::Requests() {
  std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

void ScriptedServer::Serve() {
  for (;;) {
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    Answer(fd);
  }
}

void ScriptedServer::Answer(int fd) {
  std::string request;
  size_t wanted = std::string::npos;
  char buffer[4096];
  while (wanted == std::string::npos || request.size() < wanted) {
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) break;
    request.append(buffer, static_cast<size_t>(n));
    const size_t end = request.find("\r\n\r\n");
    if (wanted != std::string::npos || end == std::string::npos) continue;
    const size_t length = request.find("Content-Length: ");
    wanted = end + 4;
    if (length < end) wanted += std::strtoul(request.c_str() + length + 16, nullptr, 10);
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    requests_.push_back(request);
  }
  const std::string answer = script_(request);
  size_t sent = 0;
  while (sent < answer.size()) {
    const ssize_t n = ::send(fd, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;
    sent += static_cast<size_t>(n);
  }
  if (keep_open_) {
    open_.push_back(fd);
  } else {
    ::shutdown(fd, SHUT_WR);
    ::close(fd);
  }
}

}  // namespace bunker::http
