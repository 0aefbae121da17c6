// http_load: sends requests of several kinds at once, each kind at a rate of its own, and tells how
// long the answers took.
//
//   http_load --port P --key KEY --seconds S KIND...      KIND:
//   name,rate,connections,method,paths[,body]
//
// `paths` and `body` are files; of `paths` each line is one path, taken in turn
// A request counts from the moment it was due, not from when a
// connection was free for it, so that a slow server can't hide its queue. rate 0: as fast as the
// connections allow, from the sending. Prints one line of JSON.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

struct Kind {
  std::string name;
  double rate = 0;
  size_t connections = 1;
  std::string method;
  std::vector<std::string> paths;
  std::string body;
  // What came of it.
  size_t sent = 0;
  size_t next_path = 0;
  std::map<int, size_t> statuses;
  std::vector<double> latencies_ms;
  std::string first_error;
};

struct Connection {
  int fd = -1;
  Kind* kind = nullptr;
  bool busy = false;
  Clock::time_point due;
  std::string in;
  std::string out;
};

double Percentile(std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1,
                         static_cast<size_t>(share * static_cast<double>(sorted.size())))];
}

class Load {
 public:
  Load(int port, std::string key, double seconds, std::vector<Kind> kinds)
      : port_(port), key_(std::move(key)), seconds_(seconds), kinds_(std::move(kinds)) {}

  bool Run() {
    epoll_ = ::epoll_create1(0);
    size_t total = 0;
    for (const Kind& kind : kinds_) total += kind.connections;
    connections_.resize(total);
    size_t index = 0;
    for (Kind& kind : kinds_) {
      for (size_t i = 0; i < kind.connections; ++i, ++index) {
        connections_[index].kind = &kind;
        if (!Open(index)) return false;
      }
    }
    start_ = Clock::now();
    const Clock::time_point end =
        start_ + std::chrono::duration_cast<Clock::duration>(Seconds(seconds_));
    // What is under way at the end may still answer.
    const Clock::time_point last = end + std::chrono::seconds(10);
    while (true) {
      const Clock::time_point now = Clock::now();
      if (now < end) {
        SendDue(now);
      } else if (std::none_of(connections_.begin(), connections_.end(),
                              [](const Connection& c) { return c.busy; }) ||
                 now > last) {
        break;
      }
      Poll();
    }
    return true;
  }

  nlohmann::json Report() {
    nlohmann::json report = nlohmann::json::object();
    for (Kind& kind : kinds_) {
      std::sort(kind.latencies_ms.begin(), kind.latencies_ms.end());
      nlohmann::json statuses = nlohmann::json::object();
      for (const auto& [status, count] : kind.statuses) statuses[std::to_string(status)] = count;
      report[kind.name] = {
          {"asked_per_s", kind.rate},
          {"answered_per_s", static_cast<double>(kind.latencies_ms.size()) / seconds_},
          {"sent", kind.sent},
          {"unanswered", kind.sent - kind.latencies_ms.size()},
          {"statuses", statuses},
          {"p50_ms", Percentile(kind.latencies_ms, 0.5)},
          {"p99_ms", Percentile(kind.latencies_ms, 0.99)},
          {"max_ms", Percentile(kind.latencies_ms, 1.0)},
          {"first_error", kind.first_error}};
    }
    return report;
  }

 private:
  bool Open(size_t index) {
    Connection& connection = connections_[index];
    connection.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(connection.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      std::perror("connect");
      return false;
    }
    const int one = 1;
    ::setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ::fcntl(connection.fd, F_SETFL, O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = index;
    return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event) == 0;
  }

  void SendDue(Clock::time_point now) {
    const double elapsed_s = Seconds(now - start_).count();
    for (Connection& connection : connections_) {
      Kind& kind = *connection.kind;
      if (connection.busy || connection.fd < 0) continue;
      if (kind.rate > 0 && static_cast<double>(kind.sent) > kind.rate * elapsed_s) continue;
      connection.due = kind.rate > 0 ? start_ + std::chrono::duration_cast<Clock::duration>(Seconds(
                                                    static_cast<double>(kind.sent) / kind.rate))
                                     : now;
      Send(connection);
    }
  }

  void Send(Connection& connection) {
    Kind& kind = *connection.kind;
    const std::string& path = kind.paths[kind.next_path++ % kind.paths.size()];
    connection.out = kind.method + " " + path +
                     " HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer " + key_ + "\r\n";
    if (!kind.body.empty()) {
      connection.out +=
          "Content-Type: application/json\r\nContent-Length: " + std::to_string(kind.body.size()) +
          "\r\n\r\n" + kind.body;
    } else {
      connection.out += "\r\n";
    }
    connection.busy = true;
    ++kind.sent;
    // A request is smaller than any socket's buffer.
    const ssize_t count =
        ::send(connection.fd, connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
    if (count != static_cast<ssize_t>(connection.out.size()))
      Fail(connection, "a request was not taken whole");
  }

  void Poll() {
    epoll_event events[128];
    const int count = ::epoll_wait(epoll_, events, 128, 1);
    for (int i = 0; i < count; ++i) Receive(connections_[events[i].data.u64]);
  }

  void Receive(Connection& connection) {
    char buffer[65536];
    while (true) {
      const ssize_t count = ::recv(connection.fd, buffer, sizeof buffer, 0);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) break;
      // One that was never needed is closed after the server's time for a first request.
      if (count == 0 && !connection.busy) return Close(connection);
      if (count <= 0) return Fail(connection, "the connection was closed");
      connection.in.append(buffer, static_cast<size_t>(count));
    }
    const size_t head = connection.in.find("\r\n\r\n");
    if (head == std::string::npos) return;
    std::string lower = connection.in.substr(0, head);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const size_t length_at = lower.find("content-length:");
    const size_t length = length_at == std::string::npos
                              ? 0
                              : std::strtoul(lower.c_str() + length_at + 15, nullptr, 10);
    if (connection.in.size() < head + 4 + length) return;
    Kind& kind = *connection.kind;
    const int status = std::atoi(connection.in.c_str() + 9);
    ++kind.statuses[status];
    if (status >= 400 && kind.first_error.empty())
      kind.first_error = connection.in.substr(head + 4, 500);
    kind.latencies_ms.push_back(Seconds(Clock::now() - connection.due).count() * 1000);
    connection.in.clear();
    connection.busy = false;
  }

  void Fail(Connection& connection, const std::string& why) {
    if (connection.kind->first_error.empty()) connection.kind->first_error = why;
    ++connection.kind->statuses[0];
    Close(connection);
  }

  static void Close(Connection& connection) {
    ::close(connection.fd);
    connection.fd = -1;
    connection.busy = false;
  }

  const int port_;
  const std::string key_;
  const double seconds_;
  std::vector<Kind> kinds_;
  int epoll_ = -1;
  Clock::time_point start_;
  std::vector<Connection> connections_;
};

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool ParseKind(const std::string& text, Kind* kind) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  if (parts.size() < 5 || parts.size() > 6) return false;
  kind->name = parts[0];
  kind->rate = std::strtod(parts[1].c_str(), nullptr);
  kind->connections = std::strtoul(parts[2].c_str(), nullptr, 10);
  kind->method = parts[3];
  kind->paths = absl::StrSplit(ReadAll(parts[4]), '\n', absl::SkipEmpty());
  if (parts.size() == 6) kind->body = ReadAll(parts[5]);
  return !kind->paths.empty() && kind->connections > 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Requests at given rates, and how long their answers took.");
  int port = 0;
  double seconds = 10;
  std::string key;
  std::vector<std::string> texts;
  app.add_option("--port", port)->required();
  app.add_option("--key", key)->required();
  app.add_option("--seconds", seconds);
  app.add_option("kinds", texts, "name,rate,connections,method,paths file[,body file]")->required();
  CLI11_PARSE(app, argc, argv);
  std::vector<Kind> kinds(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    if (ParseKind(texts[i], &kinds[i])) continue;
    std::fprintf(stderr, "http_load: can't use %s\n", texts[i].c_str());
    return 1;
  }
  Load load(port, key, seconds, std::move(kinds));
  if (!load.Run()) return 1;
  std::printf("%s\n", load.Report().dump().c_str());
  return 0;
}
