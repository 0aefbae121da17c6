// The guest's side of the channel: sessions, commands, configuration. Owns every command; one
// thread, one loop. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/guest/exec_session.h"
#include "agent/guest/file_server.h"
#include "agent/guest/launcher.h"
#include "agent/guest/outbox.h"
#include "agent/guest/poller.h"
#include "agent/guest/process_server.h"
#include "agent/guest/stream_peer.h"
#include "common/wire/session.h"

namespace bunker::guest {

class ExecServer {
 public:
  struct Options {
    int port_fd = -1;         // the channel; non-blocking, outlives the server
    int cgroup_root_fd = -1;  // -1: commands get no cgroup of their own (tests outside a guest)
    std::string boot_error;   // not empty: commands are refused with it
    std::string etc_folder = "/etc";
    // Applies what of a configuration is not a default for commands; one line per problem.
    std::function<std::vector<std::string>(const v1::GuestConfig&)> configure;
    // Then what commands find of it in files, once the host has its answer.
    std::function<void(const v1::GuestConfig&)> write_names;
  };

  explicit ExecServer(Options options);
  ~ExecServer();

  // Serves until the host asks for a shutdown; returns its grace.
  uint32_t Run();
  // One wait and what came of it. False once a shutdown was asked for.
  bool Step(int max_wait_ms);

 private:
  // A command on a stream of the host's.
  struct Exec {
    std::unique_ptr<StreamPeer> peer;
    std::unique_ptr<ExecSession> session;
    bool stdin_closed = false;
  };

  void OnPortReady();
  void OnFrame(const wire::Frame& frame);
  void OnSessionFrame(const wire::Frame& frame);
  void OnExecFrame(const wire::Frame& frame);
  void StartSession();
  void StartExec(const wire::Frame& frame);
  void Configure(const wire::Frame& frame);
  void Reap();
  void RunTimers();
  int WaitMillis(int max_wait_ms) const;
  void Collect();                     // takes down what has finished
  void Retire(ExecSession* session);  // keeps what must outlive it
  void OnDrainReady(uint64_t index);

  const Options options_;
  Poller poller_;
  Outbox outbox_;
  wire::GuestSession session_;
  Launcher launcher_;
  ProcessServer processes_;
  FileServer files_;
  Fd signals_;
  std::map<uint32_t, Exec> execs_;
  std::vector<Cgroup> old_cgroups_;     // of ended commands; removed once empty
  std::map<uint64_t, Watched> drains_;  // pipes that background processes still write to
  uint64_t next_drain_ = 0;
  bool shutdown_asked_ = false;
  uint32_t shutdown_grace_ms_ = 0;
};

}  // namespace bunker::guest
