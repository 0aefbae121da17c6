// The agent's end of the link: dials the controller for as long as the agent lives, mirrors its
// assignments down and its observations up (common/sync), and opens tunnels when asked.
//
// On the agent's loop only. gRPC runs on threads of its own and posts to the loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/link/backoff.h"
#include "agent/link/channel.h"
#include "agent/link/client_stream.h"
#include "agent/link/identity.h"
#include "agent/link/loop_gate.h"
#include "agent/link/observation_table.h"
#include "agent/link/tunnel.h"
#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "common/base/rng.h"
#include "common/loop/event_loop.h"
#include "common/sync/sync_receiver.h"
#include "common/sync/sync_sender.h"

namespace bunker::agent {

// What changes with one frame of assignments.
struct AssignmentChanges {
  bool synced = false;  // everything wanted is known now: what was not named is not wanted
  std::vector<link::v1::Assignment> rows;
  std::vector<std::string> removed;  // never before `synced`
};

// The agent, as the link needs it. Every call is on the loop.
class LinkHandler {
 public:
  virtual ~LinkHandler() = default;

  // Not OK: the row is refused, and the controller shows the reason to the user. It comes again
  // with each connection.
  virtual absl::Status AdmitAssignment(const link::v1::Assignment& row) = 0;

  // Journal, then call `durable` (on the loop, at once or later): only then the controller counts
  // on it. Where the journal fails, never call it.
  virtual void OnAssignments(AssignmentChanges changes, std::function<void()> durable) = 0;

  // Someone waits for a process in this bunker: tunnel->Serve(handler) or tunnel->SendError().
  virtual void OnTunnel(const link::v1::OpenTunnel& request, std::shared_ptr<Tunnel> tunnel) = 0;

  // The controller threw this worker out; the link has stopped. Running VMs are not its business.
  virtual void OnRevoked(const std::string& reason) = 0;

  // So many rows and removals of observations are durable at the controller.
  virtual void OnObservationsAcked(size_t /*rows*/) {}
};

class LinkClient {
 public:
  struct Options {
    LinkEndpoint endpoint;
    Identity identity;
    std::string boot_id;        // of the host
    std::string agent_version;
    link::v1::WorkerFacts facts;
    uint64_t boot_counter = 1;  // of this agent: raised and made durable before each start
    VersionMap held;            // assignments in the journal: name → version
    // Where the controller doesn't name a period. Tests shorten it.
    absl::Duration default_ping_period = absl::Seconds(5);
    absl::Duration progress_pause = absl::Milliseconds(500);
    Backoff::Options backoff;
  };

  // `loop` and `handler` must outlive the client.
  LinkClient(Loop& loop, Options options, LinkHandler& handler);
  // Ends the session; nothing is called any more, OnClosed() of open tunnels included.
  ~LinkClient();
  LinkClient(const LinkClient&) = delete;
  LinkClient& operator=(const LinkClient&) = delete;

  // Dials. Only when every observation that earlier lives left is restored: what is not in the
  // table then counts as gone.
  void Start();

  // The row with that name is as given now; `version` is set here. Progress within a state is
  // told at most twice a second, any other change at once. Before Start() too.
  void UpsertObservation(const link::v1::Observation& row);
  void RemoveObservation(const std::string& name);

  // Assignments that were handed over could not be made durable: `held` is what the journal has.
  // Ends the session, so that the controller sends the difference again.
  void ResetHeld(VersionMap held);

  // Welcomed, and not parted since.
  bool connected() const { return session_ != nullptr && session_->welcomed; }

 private:
  using Stream = ClientStream<link::v1::AgentFrame, link::v1::ControllerFrame>;
  struct Session {
    uint64_t number = 0;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<link::v1::AgentLink::Stub> stub;
    std::shared_ptr<Stream> stream;
    bool heard = false;  // a first frame came
    bool welcomed = false;
    size_t rows_in_flight = 0;  // of the observation frame that waits for its ack
  };

  // Runs `task` on the loop, unless this client is gone or the session is no longer `number`.
  std::function<void(std::function<void()>)> Poster(uint64_t number);

  void Dial();
  void DialLater(const absl::Status& why);
  void SendHello();
  void OnFrame(link::v1::ControllerFrame frame);
  void OnWelcome(const link::v1::Welcome& welcome);
  void OnAssignmentFrame(link::v1::AssignmentFrame frame);
  void OnAck(const link::v1::Ack& ack);
  void OnOpenTunnel(const link::v1::OpenTunnel& request);
  void OnGoodbye(const link::v1::Goodbye& goodbye);
  void OnDone(const absl::Status& status);
  void EndSession();

  void Pump();
  void Send(link::v1::AgentFrame frame);
  void ArmPing();
  void ArmSilence();
  void ArmCooling(const std::string& name);

  // Constant after construction.
  Loop& loop_;
  const Options options_;
  LinkHandler& handler_;
  SystemRng rng_;
  const std::string instance_id_;

  ObservationTable observations_;
  SyncSender<link::v1::Observation> sender_;
  SyncReceiver<link::v1::Assignment> receiver_;

  Backoff backoff_;
  bool stopped_ = false;
  std::unique_ptr<Session> session_;
  uint64_t last_session_ = 0;
  absl::Duration ping_period_;
  Loop::TimerId dial_timer_ = 0;
  Loop::TimerId ping_timer_ = 0;
  Loop::TimerId silence_timer_ = 0;
  std::map<std::string, Loop::TimerId> cooling_timers_;

  const std::shared_ptr<LoopGate> gate_;
  // Tasks that were posted before the end see it here.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bunker::agent
