// One session with one agent, from its hello to its end: the two mirrored tables over one stream.
//
// On the core's loop only. It lives in the SessionRegistry; what gRPC's threads bring is posted to
// the core and finds the session by its number, so that a session that was replaced is never
// heard again.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/loop/event_loop.h"
#include "common/metrics/metrics.h"
#include "common/sync/sync_receiver.h"
#include "common/sync/sync_sender.h"
#include "controller/engine/core.h"
#include "controller/link/server_stream.h"

namespace bunker::controller {

using AgentStream = ServerStream<link::v1::AgentFrame, link::v1::ControllerFrame>;

// What all sessions together did, for the operator's metrics.
struct LinkStats {
  metrics::Counter sessions;      // begun
  metrics::Counter observations;  // rows taken
  metrics::Counter acks;          // sent for frames of observations
  metrics::Counter assignments;   // rows sent
};

class AgentSession {
 public:
  struct Options {
    // The agent's, and of Beat().
    absl::Duration ping_period = absl::Seconds(14);
    int silent_periods = 3;  // so many periods without a word: the agent is gone
    SyncLimits limits;
    std::shared_ptr<LinkStats> stats = std::make_shared<LinkStats>();
  };
  // Runs `then` on the loop once what was written up to now is durable, if the session with this
  // number is still the worker's.
  using Resume = std::function<void(uint64_t number, std::function<void(AgentSession&)>)>;

  AgentSession(uint64_t number, std::string worker_id, std::string credential_sha256,
               std::shared_ptr<AgentStream> stream, Loop& loop, Options options);
  AgentSession(const AgentSession&) = delete;
  AgentSession& operator=(const AgentSession&) = delete;

  // The first thing the agent gets. `held`: the versions of the assignments that it has.
  void Welcome(const VersionMap& held, WorkerSession state, Rng& rng);

  // Any frame but the hello. `resume` must outlive the session.
  void OnFrame(Engine& engine, Turn& turn, link::v1::AgentFrame frame, const Resume& resume);

  // The agent said something.
  void Heard() { heard_ = true; }

  // Once a ping period: the agent hears something every third time, and is parted from where it
  // has been silent for too long.
  void Beat();

  // The row with that name changed, or (null) is no longer wanted.
  void OnDesired(const std::string& name, const DesiredRowPtr& row);

  // False: the agent doesn't read; the session is over.
  bool Send(link::v1::ControllerFrame frame);
  // False where the agent has too much to read already.
  bool SendOpenTunnel(const link::v1::OpenTunnel& request);

  // Says why and ends the stream. `final`: the agent is not to dial again.
  void Goodbye(const std::string& reason, bool final);

  uint64_t number() const { return number_; }
  const std::string& worker_id() const { return worker_id_; }
  const std::string& credential_sha256() const { return credential_sha256_; }
  const std::shared_ptr<AgentStream>& stream() const { return stream_; }

 private:
  void OnObservations(Engine& engine, Turn& turn, link::v1::ObservationFrame frame,
                      const Resume& resume);
  void OnAck(Engine& engine, Turn& turn, const link::v1::Ack& ack, const Resume& resume);
  void Pump();

  // Constant after construction.
  const uint64_t number_;
  const std::string worker_id_;
  const std::string credential_sha256_;
  const std::shared_ptr<AgentStream> stream_;
  Loop& loop_;
  const Options options_;

  std::map<std::string, DesiredRowPtr> desired_;  // by name, as committed
  SyncSender<DesiredRowPtr> sender_;
  SyncReceiver<ObservedRow> receiver_;
  bool over_ = false;  // said goodbye; the stream's end follows
  bool heard_ = true;  // since the last beat
  int silent_beats_ = 0;  // in a row
  int quiet_beats_ = 0;   // since something was sent
};

}  // namespace bunker::controller
