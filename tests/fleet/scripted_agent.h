// A scripted agent: one worker of which only the link is real. It dials, joins the sync and backs
// off with the agent's own link client; images and bunkers behind it are timers.
//
// On its loop only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "agent/link/link_client.h"
#include "common/base/rng.h"
#include "common/loop/event_loop.h"

namespace bunker::test {

// What every agent of a fleet does; may change while they run.
struct AgentScript {
  absl::Duration image_delay = absl::ZeroDuration();  // assignment → ready
  absl::Duration boot_delay = absl::ZeroDuration();   // the image is there → running
  absl::Duration stop_delay = absl::ZeroDuration();
  double spread = 0.2;        // each delay is drawn from 1 ± spread
  double image_failures = 0;  // share of attempts that fail, retryably
  double boot_failures = 0;
  uint64_t image_bytes = 64 << 20;
};

struct AgentCounters {
  uint64_t images_ready = 0;     // now
  uint64_t bunkers_running = 0;  // now
  uint64_t bunkers_held = 0;     // now, whatever their state
  uint64_t booted = 0;           // in all
  uint64_t rows_acked = 0;
  uint64_t revoked = 0;
};

class ScriptedAgent final : public agent::LinkHandler {
 public:
  // `script` and `counters` are the fleet's and must outlive the agent, as must `loop`.
  ScriptedAgent(Loop& loop, agent::LinkClient::Options options, const AgentScript& script,
                AgentCounters& counters, uint64_t seed);
  ~ScriptedAgent() override;

  // Opens the link; it then stays open, and comes back by itself, until Drop().
  void Dial();
  // Cuts the connection as a dying process does. What runs here runs on.
  void Drop();
  // The host comes up anew: no bunker of before is there. Images are.
  void Reboot();

  bool connected() const { return client_ != nullptr && client_->connected(); }
  const agent::Identity& identity() const { return options_.identity; }

  // Tells of new activity in every running bunker, `on`: again with each ack, as fast as the
  // controller takes it.
  void Flood(bool on);

  // Name → state of all that it holds: "image ready", "bunker running", …
  std::map<std::string, std::string> Dump() const;

  absl::Status AdmitAssignment(const link::v1::Assignment& row) override;
  void OnAssignments(agent::AssignmentChanges changes, std::function<void()> durable) override;
  void OnTunnel(const link::v1::OpenTunnel& request,
                std::shared_ptr<agent::Tunnel> tunnel) override;
  void OnRevoked(const std::string& reason) override;
  void OnObservationsAcked(size_t rows) override;

 private:
  struct Held {
    uint64_t version = 0;
    link::v1::Assignment row;
    link::v1::Observation told;  // without a name: nothing yet
    Loop::TimerId timer = 0;     // the step under way
  };
  using HeldMap = std::map<std::string, Held>;

  absl::Duration Draw(absl::Duration mean);
  void Take(const link::v1::Assignment& row);
  void Remove(const std::string& name);
  void Arm(Held& held, absl::Duration mean, void (ScriptedAgent::*step)(Held&));
  void StartImage(Held& held);
  void FinishImage(Held& held);
  void StartBunker(Held& held);
  void FinishBoot(Held& held);
  void FinishStop(Held& held);
  void FinishPause(Held& held);
  void TellSnapshot(Held& held);
  void BootWaiting(const std::string& image_id);
  bool ImageReady(const std::string& image_id) const;
  void Tell(Held& held);
  void Count(const Held& held, int64_t sign);
  void TouchAll();

  // Constant after construction.
  Loop& loop_;
  const AgentScript& script_;
  AgentCounters& counters_;

  agent::LinkClient::Options options_;
  SeededRng rng_;
  HeldMap held_;
  uint64_t reboots_ = 0;
  bool flooding_ = false;
  int64_t activity_ms_ = 0;
  std::unique_ptr<agent::LinkClient> client_;
};

}  // namespace bunker::test
