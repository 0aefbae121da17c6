// Turns Ctrl-C, SIGTERM and SIGHUP into the cancellation of a piece of work.
//
// Construct it before any other thread is started, so that all inherit the blocked signals. The
// token must outlive it.
#pragma once

#include <thread>

#include "common/base/cancel.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

class Interrupt {
 public:
  explicit Interrupt(CancelToken* cancel);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Whether a signal has come, perhaps a moment before the token hears of it: a terminal sends its
  // Ctrl-C to children, too, and these may have ended first.
  bool Arrived() const;

 private:
  void Wait(CancelToken* cancel) const;

  UniqueFd signals_;
  UniqueFd ended_;
  std::thread thread_;
};

}  // namespace bunker::agent
