#include "controller/listener_watchdog.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "common/base/log.h"
#include "common/base/unique_fd.h"

namespace bunker::controller {
namespace {

// Neither HTTP/2's preface nor a TLS record: whoever accepts answers or hangs up.
constexpr char kProbe[] = "PROBE\r\n\r\n";

bool MakeAddress(const std::string& host, uint16_t port, sockaddr_storage* address,
                 socklen_t* size) {
  std::memset(address, 0, sizeof *address);
  auto* v4 = reinterpret_cast<sockaddr_in*>(address);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    *size = sizeof *v4;
    return true;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(address);
  if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  *size = sizeof *v6;
  return true;
}

bool PollFor(int fd, short events, absl::Duration timeout) {
  pollfd item{fd, events, 0};
  return ::poll(&item, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) == 1;
}

}  // namespace

bool ListenerAnswers(const std::string& host, uint16_t port, absl::Duration timeout) {
  sockaddr_storage address;
  socklen_t size = 0;
  if (!MakeAddress(host, port, &address, &size)) return false;
  const UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return true;  // this process is out of descriptors itself, which is no proof
  const int connected = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size);
  if (connected != 0 && (errno != EINPROGRESS || !PollFor(fd.get(), POLLOUT, timeout)))
    return false;
  if (::send(fd.get(), kProbe, sizeof kProbe - 1, MSG_NOSIGNAL) < 0) return false;
  return PollFor(fd.get(), POLLIN, timeout);
}

ListenerWatchdog::ListenerWatchdog(Options options, std::function<void()> dead)
    : options_(std::move(options)), dead_(std::move(dead)), thread_([this] { Run(); }) {}

ListenerWatchdog::~ListenerWatchdog() {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
  }
  stop_changed_.notify_all();
  thread_.join();
}

bool ListenerWatchdog::WaitOrStopped(absl::Duration duration) {
  MutexLock lock(mutex_);
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(duration);
  while (!stopped_) {
    if (stop_changed_.wait_until(lock.native(), until) == std::cv_status::timeout) break;
  }
  return stopped_;
}

void ListenerWatchdog::Run() {
  int failures = 0;
  while (!WaitOrStopped(options_.period)) {
    failures = ListenerAnswers(options_.host, options_.port, options_.timeout) ? 0 : failures + 1;
    if (failures == 0) continue;
    Log(Severity::kError, "listener.silent",
        {{"port", options_.port}, {"failures", failures}, {"limit", options_.failures}});
    if (failures < options_.failures) continue;
    dead_();
    return;
  }
}

}  // namespace bunker::controller
