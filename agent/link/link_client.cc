#include "agent/link/link_client.h"

#include <utility>

#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

using link::v1::AgentFrame;
using link::v1::Assignment;
using link::v1::ControllerFrame;
using link::v1::Observation;

constexpr uint32_t kProtocolVersion = 1;
// One observation frame, acks and pings: more means that the peer stopped reading.
constexpr size_t kMaxQueuedFrames = 16;
// So many periods without a word: the controller is gone, whatever TCP says.
constexpr int kSilentPeriods = 8;
// An exec's own time-out ends it long before; this ends a tunnel that nobody ended.
constexpr absl::Duration kTunnelDeadline = absl::Hours(24);

}  // namespace

LinkClient::LinkClient(Loop& loop, Options options, LinkHandler& handler)
    : loop_(loop),
      options_(std::move(options)),
      handler_(handler),
      instance_id_(HexEncode(SystemRng().Bytes(16))),
      observations_(options_.boot_counter),
      sender_(SyncLimits{}, [this](const std::string& name) { return observations_.Find(name); },
              [](const Observation& row) { return row.ByteSizeLong(); }),
      receiver_(options_.held),
      backoff_(options_.backoff),
      ping_period_(options_.default_ping_period),
      gate_(std::make_shared<LoopGate>(loop)) {}

LinkClient::~LinkClient() {
  *alive_ = false;
  gate_->Shut();
  EndSession();
  loop_.CancelTimer(dial_timer_);
  for (const auto& [name, timer] : cooling_timers_) loop_.CancelTimer(timer);
}

void LinkClient::Start() { Dial(); }

std::function<void(std::function<void()>)> LinkClient::Poster(uint64_t number) {
  return [this, number, alive = alive_, gate = gate_](std::function<void()> task) {
    gate->Post([this, number, alive, task = std::move(task)] {
      if (*alive && session_ != nullptr && session_->number == number) task();
    });
  };
}

void LinkClient::Dial() {
  dial_timer_ = 0;
  // A small local file is read here, and nothing waited for.
  auto channel = OpenChannel(options_.endpoint);
  if (!channel.ok()) return DialLater(channel.status());
  session_ = std::make_unique<Session>();
  session_->number = ++last_session_;
  session_->channel = *std::move(channel);
  session_->stub = link::v1::AgentLink::NewStub(session_->channel);

  const auto post = Poster(session_->number);
  Stream::Events events;
  events.on_read = [this, post](ControllerFrame frame) {
    auto shared = std::make_shared<ControllerFrame>(std::move(frame));
    post([this, shared] { OnFrame(std::move(*shared)); });
  };
  events.on_done = [this, post](const grpc::Status& status) {
    post([this, error = FromGrpc(status)] { OnDone(error); });
  };
  session_->stream = Stream::Create(kMaxQueuedFrames, std::move(events));
  session_->stream->context().AddMetadata("authorization",
                                          "Bearer " + options_.identity.credential);
  session_->stream->Start(session_->stream,
                          [this](grpc::ClientContext* context, Stream::Reactor* reactor) {
                            session_->stub->async()->Connect(context, reactor);
                          });
  receiver_.OnConnect(session_->number);
  SendHello();
  ArmSilence();
}

void LinkClient::SendHello() {
  AgentFrame frame;
  link::v1::Hello& hello = *frame.mutable_hello();
  hello.set_protocol_version(kProtocolVersion);
  hello.set_boot_id(options_.boot_id);
  hello.set_instance_id(instance_id_);
  hello.set_agent_version(options_.agent_version);
  *hello.mutable_facts() = options_.facts;
  for (const auto& [name, version] : receiver_.held()) (*hello.mutable_held())[name] = version;
  Send(std::move(frame));
}

void LinkClient::OnFrame(ControllerFrame frame) {
  if (!std::exchange(session_->heard, true)) backoff_.Reset();
  ArmSilence();
  session_->stream->ReadNext();
  switch (frame.frame_case()) {
    case ControllerFrame::kWelcome: return OnWelcome(frame.welcome());
    case ControllerFrame::kAssignments:
      return OnAssignmentFrame(std::move(*frame.mutable_assignments()));
    case ControllerFrame::kAck: return OnAck(frame.ack());
    case ControllerFrame::kOpenTunnel: return OnOpenTunnel(frame.open_tunnel());
    case ControllerFrame::kGoodbye: return OnGoodbye(frame.goodbye());
    case ControllerFrame::kPing:
    case ControllerFrame::FRAME_NOT_SET:
      return;
  }
}

void LinkClient::OnWelcome(const link::v1::Welcome& welcome) {
  session_->welcomed = true;
  if (welcome.ping_period_ms() > 0) ping_period_ = absl::Milliseconds(welcome.ping_period_ms());
  Log(Severity::kInfo, "link.connected",
      {{"controller", options_.endpoint.address}, {"worker", welcome.worker_id()},
       {"session", welcome.session_id()}});
  sender_.OnConnect(session_->number, VersionMap(welcome.held().begin(), welcome.held().end()),
                    observations_.Versions());
  ArmPing();
  ArmSilence();
  Pump();
}

void LinkClient::OnAssignmentFrame(link::v1::AssignmentFrame frame) {
  SyncFrame<Assignment> sync;
  sync.frame = frame.frame();
  sync.synced = frame.synced();
  for (Assignment& row : *frame.mutable_rows())
    sync.rows.push_back({row.name(), row.version(), std::move(row)});
  sync.removed.assign(frame.removed().begin(), frame.removed().end());
  auto changes = receiver_.OnFrame(
      session_->number, std::move(sync),
      [this](const SyncRow<Assignment>& row) { return handler_.AdmitAssignment(row.row); });
  if (!changes) return;

  AgentFrame ack;
  ack.mutable_ack()->set_frame(changes->frame);
  for (const SyncRejection& rejection : changes->rejections) {
    link::v1::Rejection& out = *ack.mutable_ack()->add_rejections();
    out.set_name(rejection.name);
    out.set_version(rejection.version);
    out.set_code(rejection.code.empty() ? "INTERNAL" : rejection.code);
    out.set_message(rejection.message);
  }
  AssignmentChanges told;
  told.synced = changes->synced;
  for (SyncRow<Assignment>& row : changes->rows) told.rows.push_back(std::move(row.row));
  told.removed = std::move(changes->removed);
  handler_.OnAssignments(std::move(told), [this, alive = alive_, number = session_->number, ack] {
    if (*alive && session_ != nullptr && session_->number == number) Send(ack);
  });
}

void LinkClient::ResetHeld(VersionMap held) {
  receiver_.ResetHeld(std::move(held));
  if (session_ != nullptr) session_->stream->Cancel();  // OnDone dials again, after a pause
}

void LinkClient::OnAck(const link::v1::Ack& ack) {
  if (!sender_.OnAck(session_->number, ack.frame())) {
    Log(Severity::kWarning, "link.protocol_error", {{"what", "an ack of no frame in flight"}});
    session_->stream->Cancel();
    return;
  }
  for (const link::v1::Rejection& rejection : ack.rejections()) {
    Log(Severity::kWarning, "link.observation_refused",
        {{"row", rejection.name()}, {"code", rejection.code()}, {"message", rejection.message()}});
  }
  handler_.OnObservationsAcked(std::exchange(session_->rows_in_flight, 0));
  Pump();
}

void LinkClient::OnOpenTunnel(const link::v1::OpenTunnel& request) {
  handler_.OnTunnel(request, Tunnel::Open(gate_, session_->channel, options_.identity.credential,
                                          request.tunnel_id(), kTunnelDeadline));
}

void LinkClient::OnGoodbye(const link::v1::Goodbye& goodbye) {
  Log(Severity::kWarning, "link.goodbye", {{"reason", goodbye.reason()},
                                           {"final", goodbye.final()}});
  if (!goodbye.final()) return;
  stopped_ = true;
  EndSession();
  handler_.OnRevoked(goodbye.reason());
}

void LinkClient::OnDone(const absl::Status& status) {
  EndSession();
  DialLater(status);
}

void LinkClient::DialLater(const absl::Status& why) {
  if (stopped_) return;
  const absl::Duration delay = backoff_.Next(rng_);
  Log(Severity::kWarning, "link.parted",
      {{"controller", options_.endpoint.address},
       {"why", why.ok() ? std::string("the controller ended the session") : why.ToString()},
       {"retry_ms", absl::ToInt64Milliseconds(delay)}});
  dial_timer_ = loop_.AddTimer(delay, [this] { Dial(); });
}

void LinkClient::EndSession() {
  loop_.CancelTimer(std::exchange(ping_timer_, 0));
  loop_.CancelTimer(std::exchange(silence_timer_, 0));
  sender_.OnDisconnect();
  receiver_.OnDisconnect();
  if (session_ == nullptr) return;
  session_->stream->Cancel();
  session_.reset();
}

void LinkClient::UpsertObservation(const Observation& row) {
  if (observations_.Upsert(row) != ObservationTable::Told::kNow) return;
  ArmCooling(row.name());
  sender_.MarkChanged(row.name());
  Pump();
}

void LinkClient::RemoveObservation(const std::string& name) {
  if (!observations_.Remove(name)) return;
  sender_.MarkChanged(name);
  Pump();
}

void LinkClient::Pump() {
  const auto frame = sender_.NextFrame();
  if (!frame) return;
  session_->rows_in_flight = frame->rows.size() + frame->removed.size();
  AgentFrame out;
  link::v1::ObservationFrame& observations = *out.mutable_observations();
  observations.set_frame(frame->frame);
  observations.set_synced(frame->synced);
  for (const SyncRow<Observation>& row : frame->rows) *observations.add_rows() = row.row;
  for (const std::string& name : frame->removed) observations.add_removed(name);
  Send(std::move(out));
}

void LinkClient::Send(AgentFrame frame) {
  session_->stream->Write(std::move(frame));
  ArmPing();
}

void LinkClient::ArmPing() {
  loop_.CancelTimer(ping_timer_);
  ping_timer_ = loop_.AddTimer(ping_period_, [this] {
    ping_timer_ = 0;
    AgentFrame frame;
    frame.mutable_ping();
    Send(std::move(frame));
  });
}

void LinkClient::ArmSilence() {
  loop_.CancelTimer(silence_timer_);
  silence_timer_ = loop_.AddTimer(kSilentPeriods * ping_period_, [this] {
    silence_timer_ = 0;
    Log(Severity::kWarning, "link.silent", {{"controller", options_.endpoint.address}});
    EndSession();
    DialLater(absl::DeadlineExceededError("the controller said nothing for too long"));
  });
}

void LinkClient::ArmCooling(const std::string& name) {
  if (cooling_timers_.count(name) > 0) return;
  cooling_timers_[name] = loop_.AddTimer(options_.progress_pause, [this, name] {
    cooling_timers_.erase(name);
    if (!observations_.Cooled(name)) return;
    ArmCooling(name);
    sender_.MarkChanged(name);
    Pump();
  });
}

}  // namespace bunker::agent
