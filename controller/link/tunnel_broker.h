// Brings callers and agents together: asks a worker's agent to open a tunnel, and hands the
// stream that comes to the caller who waits for it.
//
// On the core's loop only, but for what says otherwise.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/loop/event_loop.h"
#include "controller/link/exec_call.h"
#include "controller/link/tunnel_listener.h"

namespace bunker::controller {

class TunnelBroker {
 public:
  struct Options {
    absl::Duration open_timeout = absl::Seconds(15);  // for the agent's stream to come
    absl::Duration exec_slack = absl::Seconds(30);    // beyond the command's own time-out
    size_t max_waiting = 4096;                        // tunnels asked for and not yet there
    size_t max_execs = 4096;                          // commands under way
  };
  // Sends to the agent of `worker_id`; false where it is not connected or doesn't read.
  using SendOpen = std::function<bool(const std::string& worker_id, const link::v1::OpenTunnel&)>;
  using ExecId = uint64_t;

  // `loop` must outlive the broker.
  TunnelBroker(Loop& loop, Options options, SendOpen send_open);
  ~TunnelBroker();
  TunnelBroker(const TunnelBroker&) = delete;
  TunnelBroker& operator=(const TunnelBroker&) = delete;

  // Runs a command to its end. `done` runs on the loop, exactly once, at the latest a while after
  // the command's own time-out: with the result, or UNAVAILABLE (the worker is not connected, or
  // its connection broke), UPSTREAM_TIMEOUT (no word from the agent in time), or what the agent
  // said. The id is for CancelExec(). Whether the bunker runs is the engine's to say
  // (Engine::BeginExec), and the incarnation is checked by the agent.
  ExecId Exec(ExecSpec spec, ExecCall::Done done);

  // The caller is gone: the command's process tree is ended. Unknown ids are fine.
  void CancelExec(ExecId id);

  // Asks for a tunnel. The listener's OnClosed() comes whatever happens; UNAVAILABLE or
  // UPSTREAM_TIMEOUT where the agent doesn't come.
  void OpenTunnel(const std::string& worker_id, const std::string& bunker_id,
                  uint32_t incarnation, std::shared_ptr<TunnelListener> listener);

  // The agent of `worker_id` has come with a tunnel. Null: nobody waits for that id.
  std::shared_ptr<TunnelListener> Claim(const std::string& worker_id,
                                        const std::string& tunnel_id);

  // A new session of that worker begins: what was asked of the old one is asked again.
  void AskAgain(const std::string& worker_id);

  // The controller is stopping: every caller is told, every stream is ended.
  void CloseAll();

 private:
  struct Waiting {
    std::string worker_id;
    link::v1::OpenTunnel request;
    std::shared_ptr<TunnelListener> listener;
    Loop::TimerId timer = 0;
  };
  struct ExecState {
    std::shared_ptr<ExecCall> call;
    Loop::TimerId timer = 0;
  };

  void GiveUp(const std::string& tunnel_id);
  void OnExecDone(ExecId id, ExecCall::Done& done, absl::StatusOr<ExecResult> result);

  // Constant after construction.
  Loop& loop_;
  const Options options_;
  const SendOpen send_open_;

  std::map<std::string, Waiting> waiting_;  // by tunnel id
  std::map<ExecId, ExecState> execs_;
  ExecId next_exec_ = 1;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bunker::controller
