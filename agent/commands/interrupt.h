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

 private:
  void Wait(CancelToken* cancel) const;

  UniqueFd signals_;
  UniqueFd ended_;
  std::thread thread_;
};

}  // namespace bunker::agent
