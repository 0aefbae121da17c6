// The real server of the guest without a guest: a thread of the test's process serves a socket.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "absl/status/statusor.h"
#include "agent/guest/exec_server.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

class RealServer {
 public:
  RealServer() {
    // In every thread, as in a guest: else the signal goes to one that ignores it.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    host_ = UniqueFd(ends[0]);
    port_ = UniqueFd(ends[1]);
    thread_ = std::thread([this] {
      guest::ExecServer::Options options;
      options.port_fd = port_.get();
      guest::ExecServer server(std::move(options));
      while (!stop_ && server.Step(20)) {
      }
    });
  }
  ~RealServer() {
    stop_ = true;
    thread_.join();
  }
  // The host's end; once.
  absl::StatusOr<UniqueFd> Connect() {
    if (!host_) return absl::UnavailableError("taken");
    return std::move(host_);
  }

 private:
  UniqueFd host_, port_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace bunker::agent
