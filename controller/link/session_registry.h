// Every session with an agent, by worker: the newest one of a worker wins, the one before gets
// Goodbye, and two agents with one credential are kept out.
//
// On the core's loop only. Must be destroyed before the core and after the server's last call.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>

#include "absl/status/statusor.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/mutex.h"
#include "common/base/rng.h"
#include "controller/engine/core.h"
#include "controller/link/agent_session.h"
#include "controller/link/session_fence.h"

namespace bunker::controller {

class SessionRegistry {
 public:
  struct Options {
    AgentSession::Options session;
    absl::Duration hello_timeout = absl::Seconds(10);
  };
  // A worker's session has begun.
  using OnBegin = std::function<void(const std::string& worker_id)>;

  SessionRegistry(Core& core, Options options, OnBegin on_begin);
  ~SessionRegistry();
  SessionRegistry(const SessionRegistry&) = delete;
  SessionRegistry& operator=(const SessionRegistry&) = delete;

  // A stream came, with that credential. `number` is new and says from now on which one it is.
  void OnOpen(Engine& engine, Turn& turn, uint64_t number, std::shared_ptr<AgentStream> stream,
              absl::StatusOr<std::string> credential_sha256);
  void OnFrame(Engine& engine, Turn& turn, uint64_t number, link::v1::AgentFrame frame);
  void OnEnd(Engine& engine, Turn& turn, uint64_t number);

  // That stream's agent is alive. Taken note of with the next beat: a fleet's pings cost the loop
  // one event. Thread-safe.
  void NotePing(uint64_t number);

  // What was committed: desired rows go down, workers whose credential is gone are sent away.
  void OnChanges(const ChangeSet& changes);

  bool SendOpenTunnel(const std::string& worker_id, const link::v1::OpenTunnel& request);

  // The controller is stopping: agents are told, and dial again later.
  void CloseAll(const std::string& reason);

  // On the loop, as all else; the counters are read from anywhere.
  size_t connected() const { return by_worker_.size(); }
  const LinkStats& stats() const { return *options_.session.stats; }

 private:
  // Authenticated, and its hello is awaited.
  struct Opening {
    std::string worker_id;
    std::string credential_sha256;
    std::shared_ptr<AgentStream> stream;
    Loop::TimerId timer = 0;
  };

  // The stream without a hello; nothing where it is none any more.
  std::optional<Opening> TakeOpening(uint64_t number);
  void OnHello(Engine& engine, Turn& turn, uint64_t number, Opening opening,
               const link::v1::Hello& hello);
  // False: told to go away.
  bool PassesFence(Turn& turn, const Opening& opening, const link::v1::Hello& hello);
  void Begin(uint64_t number, Opening opening, const link::v1::Hello& hello, WorkerSession state);
  // Ends the worker's session, if it has one.
  void Dismiss(const std::string& worker_id, const std::string& reason, bool final);

  // Ten times a ping period: gives the engine the pings that came, and a tenth of the sessions
  // their beat.
  void Beat();

  // Tells the engine, if no session has begun by then.
  void Disconnect(const std::string& worker_id);

  Core& core_;
  const Options options_;
  const OnBegin on_begin_;
  SystemRng rng_;
  AgentSession::Resume resume_;
  Core::WatchId watch_ = 0;

  std::map<uint64_t, Opening> opening_;
  std::map<std::string, uint64_t> opening_of_worker_;  // one each
  std::map<uint64_t, std::unique_ptr<AgentSession>> sessions_;
  std::map<std::string, uint64_t> by_worker_;  // the current session's number
  std::map<std::string, SessionFence> fences_;
  Loop::TimerId beat_timer_ = 0;
  uint64_t beats_ = 0;
  bool closed_ = false;

  Mutex pings_mutex_;
  std::unordered_set<uint64_t> pings_ ABSL_GUARDED_BY(pings_mutex_);
};

}  // namespace bunker::controller
