#include "agent/commands/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "common/base/log.h"

namespace bunker::agent {

Interrupt::Interrupt(CancelToken* cancel) {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&set, number);
  BUNKER_CHECK(::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC));
  ended_.reset(::eventfd(0, EFD_CLOEXEC));
  BUNKER_CHECK(signals_ && ended_);
  thread_ = std::thread([this, cancel] { Wait(cancel); });
}

Interrupt::~Interrupt() {
  const uint64_t one = 1;
  while (::write(ended_.get(), &one, sizeof one) < 0 && errno == EINTR) continue;
  thread_.join();
}

bool Interrupt::Arrived() const {
  pollfd polled{signals_.get(), POLLIN, 0};
  return ::poll(&polled, 1, 0) == 1;  // nobody reads it: what has come stays
}

void Interrupt::Wait(CancelToken* cancel) const {
  pollfd polled[2] = {{signals_.get(), POLLIN, 0}, {ended_.get(), POLLIN, 0}};
  while (::poll(polled, 2, -1) < 0 && errno == EINTR) continue;
  if (polled[0].revents != 0) cancel->Cancel();
}

}  // namespace bunker::agent
