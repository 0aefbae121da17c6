#include "controller/link/peer_listener.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::controller {
namespace {

constexpr int kBacklog = 64;
constexpr int kPauseMs = 100;  // where descriptors have run out

bool IsAllowed(int fd) {
  ucred peer = {};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  if (peer.uid == 0 || peer.uid == ::geteuid()) return true;
  Log(Severity::kWarning, "admin.stranger", {{"uid", peer.uid}, {"pid", peer.pid}});
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PeerListener>> PeerListener::Start(
    const std::string& path, std::unique_ptr<Acceptor> acceptor) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  BUNKER_CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return ErrnoError(errno, "the admin socket");
  // Between bind and chmod the umask alone keeps others out.
  const mode_t old_mask = ::umask(0177);
  const int bound =
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int bind_errno = errno;
  ::umask(old_mask);
  if (bound != 0) return ErrnoError(bind_errno, "binding the admin socket " + path);
  if (::chmod(path.c_str(), 0600) != 0) return ErrnoError(errno, "chmod " + path);
  if (::listen(listener.get(), kBacklog) != 0) return ErrnoError(errno, "listening on " + path);
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return ErrnoError(errno, "eventfd");
  return std::unique_ptr<PeerListener>(
      new PeerListener(std::move(listener), std::move(wake), std::move(acceptor)));
}

PeerListener::PeerListener(UniqueFd listener, UniqueFd wake, std::unique_ptr<Acceptor> acceptor)
    : listener_(std::move(listener)),
      wake_(std::move(wake)),
      acceptor_(std::move(acceptor)),
      thread_([this] { Work(); }) {}

PeerListener::~PeerListener() {
  const uint64_t one = 1;
  BUNKER_CHECK(::write(wake_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
}

void PeerListener::Work() {
  pthread_setname_np(pthread_self(), "admin-accept");
  while (true) {
    pollfd fds[] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    if (fds[0].revents != 0) AcceptOne();
  }
}

void PeerListener::AcceptOne() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) {
    const bool is_full = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    pollfd wake = {wake_.get(), POLLIN, 0};
    if (is_full) (void)::poll(&wake, 1, kPauseMs);
    return;
  }
  if (!IsAllowed(fd.get())) return;
  Acceptor::NewConnectionParameters connection;
  connection.listener_fd = listener_.get();
  connection.fd = fd.release();
  acceptor_->HandleNewConnection(&connection);
}

}  // namespace bunker::controller
