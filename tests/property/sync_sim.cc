#include "tests/property/sync_sim.h"

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/sync/sync_receiver.h"
#include "common/sync/sync_sender.h"

namespace bunker {
namespace {

// The content of a row is the number of the edit that made it, unique over the whole run.
struct Row {
  uint64_t edit = 0;
  bool poison = false;  // the receiver refuses it
};
using Frame = SyncFrame<Row>;

constexpr uint64_t kRemoved = 0;

// What one name went through at the sender, for the oracle: edits and kRemoved, in order.
using Histories = std::map<std::string, std::vector<uint64_t>>;

struct Hello {
  VersionMap held;
};
struct Ack {
  uint64_t frame = 0;
  std::vector<SyncRejection> rejections;
};
struct Message {
  uint64_t session = 0;
  std::variant<Hello, Frame, Ack> body;
};

struct Options {
  SyncMistake mistake = SyncMistake::kNone;
  SyncLimits limits;
  bool rebuilds_table = false;  // versions come anew at each start (the agent's observations)
};

// The owner of a table and its sender.
class Source {
 public:
  explicit Source(const Options& options) : options_(options) { Start(); }

  void Edit(const std::string& name, uint64_t edit, bool poison) {
    rows_[name] = {name, NextVersion(), {edit, poison}};
    history_[name].push_back(edit);
    Changed(name);
  }
  void Remove(const std::string& name) {
    if (rows_.erase(name) == 0) return;
    history_[name].push_back(kRemoved);
    Changed(name);
  }
  void Restart() { Start(); }

  void OnConnect(uint64_t session, const VersionMap& held) {
    VersionMap current;
    for (const auto& [name, row] : rows_) current[name] = row.version;
    sender_->OnConnect(session, held, current);
  }
  std::optional<Frame> NextFrame() {
    std::optional<Frame> frame = sender_->NextFrame();
    if (!frame) return frame;
    in_flight_ = frame;
    if (options_.mistake == SyncMistake::kLeavesOutRemovals) frame->removed.clear();
    return frame;
  }
  // The frame that this acks, if it is the one in flight.
  std::optional<Frame> OnAck(uint64_t session, const Ack& ack) {
    if (!sender_->OnAck(session, ack.frame)) return std::nullopt;
    for (const SyncRejection& rejection : ack.rejections)
      rejected_[rejection.name] = rejection.version;
    return std::exchange(in_flight_, std::nullopt);
  }

  SyncSender<Row>& sender() { return *sender_; }
  const std::map<std::string, SyncRow<Row>>& rows() const { return rows_; }
  const std::map<std::string, uint64_t>& rejected() const { return rejected_; }
  const Histories& history() const { return history_; }

 private:
  void Start() {
    ++boot_;
    const bool reuse = options_.mistake == SyncMistake::kReusesVersions;
    if (reuse) persisted_version_ = 0;
    versions_ = std::make_unique<VersionCounter>(reuse ? 1 : boot_);
    rejected_.clear();
    in_flight_.reset();
    if (options_.rebuilds_table) {
      for (auto& [name, row] : rows_) row.version = NextVersion();
    }
    sender_ = std::make_unique<SyncSender<Row>>(
        options_.limits,
        [this](const std::string& name) -> std::optional<SyncRow<Row>> {
          const auto it = rows_.find(name);
          if (it == rows_.end()) return std::nullopt;
          return it->second;
        },
        [](const Row&) { return sizeof(Row); });
  }
  uint64_t NextVersion() {
    return options_.rebuilds_table ? versions_->Next() : ++persisted_version_;
  }
  void Changed(const std::string& name) {
    if (options_.mistake == SyncMistake::kForgetsChangeInFlight && in_flight_) {
      for (const SyncRow<Row>& row : in_flight_->rows)
        if (row.name == name) return;
    }
    sender_->MarkChanged(name);
  }

  const Options options_;
  // Survive a restart. The rows of a rebuilt table do too: they stand for the running VMs.
  std::map<std::string, SyncRow<Row>> rows_;
  uint64_t persisted_version_ = 0;
  uint64_t boot_ = 0;
  Histories history_;
  // Do not survive it.
  std::unique_ptr<VersionCounter> versions_;
  std::unique_ptr<SyncSender<Row>> sender_;
  std::optional<Frame> in_flight_;
  std::map<std::string, uint64_t> rejected_;
};

// The owner of a copy: a receiver, a copy in memory and one on disk that lags behind.
class Copy {
 public:
  Copy(const Options& options, const Histories* history)
      : options_(options), history_(history), receiver_(std::make_unique<SyncReceiver<Row>>()) {}

  // Applies a frame to memory and queues the disk write. An ack to send at once, if any.
  std::optional<Message> OnFrame(uint64_t session, Frame frame) {
    if (options_.mistake == SyncMistake::kDeletesBeforeSynced) {
      for (const std::string& name : frame.removed) {
        if (memory_.rows.count(name) > 0) Remove(name);
      }
    }
    auto changes = receiver_->OnFrame(session, std::move(frame), [](const SyncRow<Row>& row) {
      if (!row.row.poison) return absl::OkStatus();
      return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR", "poison");
    });
    if (!changes) return std::nullopt;
    if (!changes->removed.empty() && !receiver_->synced()) Violated("deletes before synced", "");
    for (const std::string& name : changes->removed) Remove(name);
    for (const SyncRow<Row>& row : changes->rows) Apply(row);
    Message ack{session, Ack{changes->frame, std::move(changes->rejections)}};
    unwritten_.push_back({memory_, receiver_->held(), std::nullopt});
    if (options_.mistake == SyncMistake::kAcksBeforeDurable) return ack;
    unwritten_.back().ack = std::move(ack);
    return std::nullopt;
  }

  // One disk write ends. The ack that it releases, if any.
  std::optional<Message> FinishWrite() {
    if (unwritten_.empty()) return std::nullopt;
    Write write = std::move(unwritten_.front());
    unwritten_.pop_front();
    disk_ = std::move(write.state);
    disk_held_ = std::move(write.held);
    return std::move(write.ack);
  }

  void Restart() {
    VersionMap held = disk_held_;
    if (options_.mistake == SyncMistake::kClaimsLostRows) held = receiver_->held();
    unwritten_.clear();
    memory_ = disk_;
    receiver_ = std::make_unique<SyncReceiver<Row>>(std::move(held));
  }

  // An acked frame must be on disk, or something newer.
  void CheckDurable(const Frame& frame) {
    for (const SyncRow<Row>& row : frame.rows) {
      if (!row.row.poison && Position(disk_, row.name) < Find(row.name, row.row.edit, 0))
        Violated("acked but not durable", row.name);
    }
  }

  // After healing: both copies equal what the source has, less what was refused.
  void CheckEqual(const Source& source) {
    for (const auto& [name, row] : source.rows()) {
      if (row.row.poison) {
        const auto it = source.rejected().find(name);
        if (it == source.rejected().end() || it->second != row.version)
          Violated("a refusal was not told", name);
        continue;
      }
      const auto it = disk_.rows.find(name);
      if (it == disk_.rows.end()) Violated("a row is missing after healing", name);
      else if (it->second != row.row.edit) Violated("a row differs after healing", name);
    }
    for (const auto& [name, edit] : disk_.rows) {
      if (source.rows().count(name) == 0) Violated("a removed row is still there", name);
    }
  }

  SyncReceiver<Row>& receiver() { return *receiver_; }
  bool quiet() const { return unwritten_.empty(); }
  const std::optional<std::string>& violation() const { return violation_; }

 private:
  struct State {
    std::map<std::string, uint64_t> rows;       // name → edit
    std::map<std::string, size_t> positions;    // name → 1 + index in its history
  };
  struct Write {
    State state;
    VersionMap held;
    std::optional<Message> ack;
  };

  static size_t Position(const State& state, const std::string& name) {
    const auto it = state.positions.find(name);
    return it == state.positions.end() ? 0 : it->second;
  }
  // 1 + the index of `edit` in the name's history at or after `from`; 0 where there is none.
  size_t Find(const std::string& name, uint64_t edit, size_t from) const {
    const std::vector<uint64_t>& edits = history_->at(name);
    for (size_t i = from; i < edits.size(); ++i)
      if (edits[i] == edit) return i + 1;
    return 0;
  }
  void Apply(const SyncRow<Row>& row) {
    const size_t position = Find(row.name, row.row.edit, 0);
    if (row.row.poison) Violated("applied a refused row", row.name);
    if (position < Position(memory_, row.name)) Violated("older over newer", row.name);
    memory_.positions[row.name] = position;
    memory_.rows[row.name] = row.row.edit;
  }
  void Remove(const std::string& name) {
    if (options_.mistake == SyncMistake::kDeletesBeforeSynced && !receiver_->synced())
      Violated("deletes before synced", name);
    const size_t position = Find(name, kRemoved, Position(memory_, name));
    if (position == 0) Violated("removed what the source has", name);
    memory_.positions[name] = position;
    memory_.rows.erase(name);
  }
  void Violated(const std::string& what, const std::string& name) {
    if (!violation_) violation_ = what + (name.empty() ? "" : ": " + name);
  }

  const Options options_;
  const Histories* const history_;  // the source's, for the oracle
  State disk_;
  VersionMap disk_held_;
  State memory_;
  std::unique_ptr<SyncReceiver<Row>> receiver_;
  std::deque<Write> unwritten_;
  std::optional<std::string> violation_;
};

// One end: it sends its own table and keeps a copy of the other's.
struct Peer {
  Peer(const Options& options, const Histories* other_history)
      : source(options), copy(options, other_history) {}
  Source source;
  Copy copy;
  uint64_t session = 0;  // the one it takes part in; 0: none
};

class Simulation {
 public:
  Simulation(uint64_t seed, SyncMistake mistake)
      : rng_(seed), mistake_(mistake), limits_{1 + rng_.Below(4), 1 << 20},
        names_(1 + rng_.Below(8)),
        peers_{MakePeer(false), MakePeer(true)} {
    // Each run mixes its own faults, and many leave some out: rare combinations come up.
    for (uint64_t* weight : {&cut_, &restart_, &late_, &repeat_})
      *weight = rng_.Below(3) == 0 ? 0 : 1 + rng_.Below(6);
  }

  std::optional<std::string> Run() {
    const uint64_t steps = 50 + rng_.Below(300);
    for (uint64_t i = 0; i < steps && !Violation(); ++i) Step();
    if (!Violation()) Heal();
    return Violation();
  }

 private:
  static constexpr int kController = 0;
  static constexpr int kAgent = 1;

  std::unique_ptr<Peer> MakePeer(bool agent) {
    // The oracle of each copy reads the other peer's history, which is bound once both exist.
    return std::make_unique<Peer>(Options{mistake_, limits_, agent}, &histories_[agent ? 0 : 1]);
  }

  void Step() {
    const int side = static_cast<int>(rng_.Below(2));
    Peer& peer = *peers_[side];
    uint64_t draw = rng_.Below(60 + cut_ + restart_ + late_);
    if (draw < 14) return Edit(side);
    if (draw < 34) return Deliver(side);
    if (draw < 44) return Pump(side);
    if (draw < 54) return Send(side, peer.copy.FinishWrite());
    if (draw < 60) return Connect();
    draw -= 60;
    if (draw < cut_) return Cut(side);
    if (draw < cut_ + restart_) return Restart(side);
    DeliverLate();
  }

  void Edit(int side) {
    Source& source = peers_[side]->source;
    const std::string name = "row" + std::to_string(rng_.Below(names_));
    if (rng_.Below(3) == 0) {
      source.Remove(name);
    } else {
      source.Edit(name, ++last_edit_, rng_.Below(12) == 0);
    }
    histories_[side] = source.history();
  }

  void Pump(int side) {
    Peer& peer = *peers_[side];
    if (auto frame = peer.source.NextFrame()) Send(side, Message{peer.session, *std::move(frame)});
  }

  // To the other side, if the stream of that session is still the one.
  void Send(int from, std::optional<Message> message) {
    if (!message) return;
    if (message->session == stream_) queue_[1 - from].push_back(*std::move(message));
  }

  // The agent dials, whatever became of the session before.
  void Connect() {
    if (stream_ != 0 && peers_[kAgent]->session == stream_ && rng_.Below(8) != 0) return;
    EndStream();
    stream_ = ++last_session_;
    Peer& agent = *peers_[kAgent];
    agent.session = stream_;
    agent.source.sender().OnDisconnect();
    agent.copy.receiver().OnConnect(stream_);
    queue_[kController].push_back({stream_, Hello{agent.copy.receiver().held()}});
  }

  // What was under way is lost; each side may notice at once or not before the next session.
  void Cut(int side) {
    EndStream();
    if (rng_.Below(2) == 0) Forget(*peers_[side]);
  }

  void EndStream() {
    stream_ = 0;
    for (auto& queue : queue_) {
      for (Message& message : queue) Keep(&queue == &queue_[1], std::move(message));
      queue.clear();
    }
  }

  static void Forget(Peer& peer) {
    peer.session = 0;
    peer.source.sender().OnDisconnect();
    peer.copy.receiver().OnDisconnect();
  }

  void Restart(int side) {
    EndStream();
    peers_[side]->session = 0;
    peers_[side]->source.Restart();
    peers_[side]->copy.Restart();
  }

  // A message that may come a second time, or after its session ended.
  void Keep(bool to_agent, Message message) {
    if (std::holds_alternative<Hello>(message.body)) return;  // a stream begins with its own
    late_messages_.emplace_back(to_agent ? kAgent : kController, std::move(message));
    if (late_messages_.size() > 64) late_messages_.pop_front();
  }

  void DeliverLate() {
    if (late_messages_.empty()) return;
    auto [side, message] = late_messages_[rng_.Below(late_messages_.size())];
    if (mistake_ == SyncMistake::kTakesOlderSessions) message.session = peers_[side]->session;
    Handle(side, std::move(message));
  }

  void Deliver(int side) {
    if (queue_[side].empty()) return;
    Message message = std::move(queue_[side].front());
    queue_[side].pop_front();
    if (rng_.Below(8) < repeat_) Keep(side == kAgent, message);
    Handle(side, std::move(message));
  }

  void Handle(int side, Message message) {
    Peer& peer = *peers_[side];
    if (auto* hello = std::get_if<Hello>(&message.body)) {
      peer.session = message.session;
      if (side == kController) {
        peer.copy.receiver().OnConnect(message.session);
        Send(side, Message{message.session, Hello{peer.copy.receiver().held()}});
      }
      peer.source.OnConnect(message.session, hello->held);
    } else if (auto* frame = std::get_if<Frame>(&message.body)) {
      Send(side, peer.copy.OnFrame(message.session, std::move(*frame)));
    } else if (auto* ack = std::get_if<Ack>(&message.body)) {
      const auto acked = peer.source.OnAck(message.session, *ack);
      if (acked) peers_[1 - side]->copy.CheckDurable(*acked);
    }
  }

  // No more faults. Half of the runs go on with the session they have, if it stands: a new one
  // might hide what was lost.
  void Heal() {
    late_messages_.clear();
    const bool stands = stream_ != 0 && peers_[kAgent]->session == stream_;
    if (!stands || rng_.Below(2) == 0) {
      EndStream();
      Connect();
    }
    for (int round = 0; round < 2000 && !Violation(); ++round) {
      for (int side : {kController, kAgent}) {
        Pump(side);
        Send(side, peers_[side]->copy.FinishWrite());
        if (!queue_[side].empty()) {
          Message message = std::move(queue_[side].front());
          queue_[side].pop_front();
          Handle(side, std::move(message));
        }
      }
      if (Quiet()) break;
    }
    if (Violation()) return;
    if (!Quiet()) {
      stuck_ = "not quiet after healing";
      return;
    }
    for (int side : {kController, kAgent})
      peers_[1 - side]->copy.CheckEqual(peers_[side]->source);
  }

  bool Quiet() const {
    for (int side : {kController, kAgent}) {
      if (!peers_[side]->source.sender().idle() || !peers_[side]->copy.quiet()) return false;
      if (!queue_[side].empty()) return false;
    }
    return true;
  }

  std::optional<std::string> Violation() const {
    for (const auto& peer : peers_)
      if (peer->copy.violation()) return peer->copy.violation();
    return stuck_;
  }

  SeededRng rng_;
  const SyncMistake mistake_;
  const SyncLimits limits_;
  const uint64_t names_;
  Histories histories_[2];
  std::unique_ptr<Peer> peers_[2];
  std::deque<Message> queue_[2];  // to each side
  uint64_t stream_ = 0;           // the session whose stream stands; 0: none
  uint64_t last_session_ = 0;
  uint64_t last_edit_ = 0;
  std::deque<std::pair<int, Message>> late_messages_;
  std::optional<std::string> stuck_;
  uint64_t cut_ = 0;
  uint64_t restart_ = 0;
  uint64_t late_ = 0;
  uint64_t repeat_ = 0;
};

}  // namespace

std::optional<std::string> RunSyncSimulation(uint64_t seed, SyncMistake mistake) {
  return Simulation(seed, mistake).Run();
}

}  // namespace bunker
