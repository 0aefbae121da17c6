// Who hears of a running command: the host that waits for it, or a process's own record.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string_view>

#include "agent/guest/command.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

// Called by the ExecSession that it outlives, never while it calls that one.
class ExecPeer {
 public:
  virtual ~ExecPeer() = default;
  // How many bytes of output it takes now. 0: the command waits.
  virtual size_t Room() const = 0;
  // At most Room() bytes, in the session's scratch space.
  virtual void OnOutput(bool is_stderr, std::string_view data) = 0;
  // The command's stdin took so many bytes of what it was fed; or nobody will ever read them.
  virtual void OnStdinTaken(size_t bytes) = 0;
  virtual void OnStdinDropped(size_t bytes) = 0;
  // The program runs.
  virtual void OnStarted(pid_t pid) = 0;
  // Last, one of these: how it ended, or why it never ran.
  virtual void OnExit(const v1::ExecExit& exit) = 0;
  virtual void OnFailed(const CommandError& error) = 0;
};

}  // namespace bunker::guest
