// Notices that a listener stopped accepting, which the packaged gRPC does for good once the
// process has run out of file descriptors: the kernel still completes connections, nobody answers.
//
// Start and destroy from one thread.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "common/base/mutex.h"

namespace bunker::controller {

class ListenerWatchdog {
 public:
  struct Options {
    std::string host = "127.0.0.1";  // where the listener can be reached
    uint16_t port = 0;
    absl::Duration period = absl::Seconds(10);
    absl::Duration timeout = absl::Seconds(5);
    int failures = 3;  // in a row
  };

  // `dead` runs once, on the watchdog's thread.
  ListenerWatchdog(Options options, std::function<void()> dead);
  ~ListenerWatchdog();
  ListenerWatchdog(const ListenerWatchdog&) = delete;
  ListenerWatchdog& operator=(const ListenerWatchdog&) = delete;

 private:
  void Run();
  bool WaitOrStopped(absl::Duration duration);

  const Options options_;
  const std::function<void()> dead_;
  Mutex mutex_;
  CondVar stop_changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Whether anything comes back (an answer, or the end of the connection) within `timeout` after
// bytes that no protocol takes were sent. Blocking.
bool ListenerAnswers(const std::string& host, uint16_t port, absl::Duration timeout);

}  // namespace bunker::controller
