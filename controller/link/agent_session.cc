#include "controller/link/agent_session.h"

#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "controller/link/link_codec.h"

namespace bunker::controller {
namespace {

using link::v1::AgentFrame;
using link::v1::ControllerFrame;

// Beyond this a session takes no more requests for tunnels: there is room left for its own frames.
constexpr size_t kMaxQueuedBytes = 2 << 20;
// So many ping periods in which nothing was sent: a ping.
constexpr int kQuietBeats = 3;

SyncFrame<ObservedRow> ToSync(const link::v1::ObservationFrame& frame,
                              std::vector<SyncRejection>& rejections) {
  SyncFrame<ObservedRow> sync;
  sync.frame = frame.frame();
  sync.synced = frame.synced();
  for (const link::v1::Observation& row : frame.rows()) {
    auto parsed = FromProto(row);
    if (parsed.ok()) {
      sync.rows.push_back({row.name(), row.version(), *std::move(parsed)});
    } else {
      rejections.push_back({row.name(), row.version(), ReasonOf(parsed.status()),
                            std::string(parsed.status().message())});
    }
  }
  sync.removed.assign(frame.removed().begin(), frame.removed().end());
  return sync;
}

}  // namespace

AgentSession::AgentSession(uint64_t number, std::string worker_id, std::string credential_sha256,
                           std::shared_ptr<AgentStream> stream, Loop& loop, Options options)
    : number_(number),
      worker_id_(std::move(worker_id)),
      credential_sha256_(std::move(credential_sha256)),
      stream_(std::move(stream)),
      loop_(loop),
      options_(options),
      sender_(
          options.limits,
          [this](const std::string& name) -> std::optional<SyncRow<DesiredRowPtr>> {
            const auto it = desired_.find(name);
            if (it == desired_.end()) return std::nullopt;
            return SyncRow<DesiredRowPtr>{name, it->second->version, it->second};
          },
          [](const DesiredRowPtr& row) { return ToProto(*row).ByteSizeLong(); }) {}

void AgentSession::Welcome(const VersionMap& held, WorkerSession state, Rng& rng) {
  VersionMap current;
  for (DesiredRowPtr& row : state.desired) {
    current[row->name] = row->version;
    desired_[row->name] = std::move(row);
  }
  receiver_ = SyncReceiver<ObservedRow>(state.observations_held);
  receiver_.OnConnect(number_);
  sender_.OnConnect(number_, held, current);
  options_.stats->sessions.Add();
  // A tenth less at most, so that a fleet doesn't ping in step.
  const absl::Duration ping_period =
      options_.ping_period * (0.9 + 0.1 * static_cast<double>(rng.Below(1000)) / 1000);

  ControllerFrame frame;
  link::v1::Welcome& welcome = *frame.mutable_welcome();
  welcome.set_session_id(std::to_string(number_));
  welcome.set_worker_id(worker_id_);
  welcome.set_ping_period_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(ping_period)));
  for (const auto& [name, version] : receiver_.held()) (*welcome.mutable_held())[name] = version;
  Send(std::move(frame));
  Pump();
}

void AgentSession::OnFrame(Engine& engine, Turn& turn, AgentFrame frame, const Resume& resume) {
  if (over_) return;
  heard_ = true;
  engine.OnHeartbeat(turn, worker_id_);
  switch (frame.frame_case()) {
    case AgentFrame::kObservations:
      OnObservations(engine, turn, std::move(*frame.mutable_observations()), resume);
      break;
    case AgentFrame::kAck:
      OnAck(engine, turn, frame.ack(), resume);
      break;
    case AgentFrame::kHello:
      stream_->Abort({grpc::StatusCode::FAILED_PRECONDITION, "a second hello on one stream"});
      return;
    case AgentFrame::kPing:
    case AgentFrame::FRAME_NOT_SET:
      break;
  }
  stream_->ReadNext();
}

void AgentSession::OnObservations(Engine& engine, Turn& turn, link::v1::ObservationFrame frame,
                                  const Resume& resume) {
  std::vector<SyncRejection> rejections;
  auto changes = receiver_.OnFrame(number_, ToSync(frame, rejections),
                                   [](const SyncRow<ObservedRow>&) { return absl::OkStatus(); });
  if (!changes) return;
  options_.stats->observations.Add(changes->rows.size() + changes->removed.size());
  for (const SyncRow<ObservedRow>& row : changes->rows)
    engine.OnObservation(turn, worker_id_, row.row);
  for (const std::string& name : changes->removed)
    engine.OnObservationRemoved(turn, worker_id_, name);
  if (changes->synced) {
    std::vector<std::string> names;
    for (const auto& [name, version] : receiver_.held()) names.push_back(name);
    engine.OnObservationsSynced(turn, worker_id_, names);
  }
  ControllerFrame ack;
  ack.mutable_ack()->set_frame(changes->frame);
  for (const SyncRejection& rejection : rejections) {
    link::v1::Rejection& out = *ack.mutable_ack()->add_rejections();
    out.set_name(rejection.name);
    out.set_version(rejection.version);
    out.set_code(rejection.code);
    out.set_message(rejection.message);
    Log(Severity::kWarning, "link.observation_refused",
        {{"worker", worker_id_}, {"row", rejection.name}, {"message", rejection.message}});
  }
  turn.AfterCommit([number = number_, &resume, ack = std::move(ack)](const absl::Status& status) {
    resume(number, [&](AgentSession& session) {
      if (status.ok()) {
        session.options_.stats->acks.Add();
        session.Send(ack);
      } else {
        // What the engine took is taken back; the next session tells it all again.
        session.Goodbye("the controller can't store observations: " +
                            std::string(status.message()), /*final=*/false);
      }
    });
  });
}

void AgentSession::OnAck(Engine& engine, Turn& turn, const link::v1::Ack& ack,
                         const Resume& resume) {
  if (!sender_.OnAck(number_, ack.frame())) {
    stream_->Abort({grpc::StatusCode::FAILED_PRECONDITION, "an ack of no frame in flight"});
    return;
  }
  for (const link::v1::Rejection& rejection : ack.rejections()) {
    engine.OnRejection(turn, worker_id_, rejection.name(), rejection.version(), rejection.code(),
                       rejection.message());
  }
  if (ack.rejections_size() > 0) {
    turn.AfterCommit([number = number_, &resume](const absl::Status& status) {
      if (status.ok()) return;
      // They are taken back, and an agent tells them once a session.
      resume(number, [&](AgentSession& session) {
        session.Goodbye("the controller can't store rejections: " + std::string(status.message()),
                        /*final=*/false);
      });
    });
  }
  Pump();
}

void AgentSession::OnDesired(const std::string& name, const DesiredRowPtr& row) {
  const auto it = desired_.find(name);
  const bool known = it != desired_.end();
  // A change of the batch in which the session began was in its snapshot already.
  if (row == nullptr ? !known : known && it->second->version == row->version) return;
  if (row == nullptr) {
    desired_.erase(it);
  } else {
    desired_[name] = row;
  }
  sender_.MarkChanged(name);
  Pump();
}

void AgentSession::Pump() {
  const auto frame = sender_.NextFrame();
  if (!frame) return;
  ControllerFrame out;
  link::v1::AssignmentFrame& assignments = *out.mutable_assignments();
  assignments.set_frame(frame->frame);
  assignments.set_synced(frame->synced);
  for (const SyncRow<DesiredRowPtr>& row : frame->rows)
    *assignments.add_rows() = ToProto(*row.row);
  for (const std::string& name : frame->removed) assignments.add_removed(name);
  options_.stats->assignments.Add(frame->rows.size() + frame->removed.size());
  Send(std::move(out));
}

bool AgentSession::Send(ControllerFrame frame) {
  if (over_) return false;
  quiet_beats_ = 0;
  if (stream_->Write(std::move(frame))) return true;
  over_ = true;
  stream_->Abort({grpc::StatusCode::RESOURCE_EXHAUSTED, "the agent does not read"});
  return false;
}

bool AgentSession::SendOpenTunnel(const link::v1::OpenTunnel& request) {
  if (over_ || stream_->queued_bytes() > kMaxQueuedBytes) return false;
  ControllerFrame frame;
  *frame.mutable_open_tunnel() = request;
  return stream_->Write(std::move(frame));
}

void AgentSession::Goodbye(const std::string& reason, bool final) {
  if (std::exchange(over_, true)) return;
  ControllerFrame frame;
  frame.mutable_goodbye()->set_reason(reason);
  frame.mutable_goodbye()->set_final(final);
  stream_->Write(std::move(frame));
  stream_->Finish(grpc::Status::OK);
  // One that doesn't read is not waited for.
  loop_.AddTimer(options_.ping_period, [stream = stream_] {
    stream->Abort({grpc::StatusCode::UNAVAILABLE, "the session was ended"});
  });
}

void AgentSession::Beat() {
  if (over_) return;
  silent_beats_ = std::exchange(heard_, false) ? 0 : silent_beats_ + 1;
  if (silent_beats_ >= options_.silent_periods) {
    Log(Severity::kWarning, "link.silent", {{"worker", worker_id_}});
    stream_->Abort({grpc::StatusCode::DEADLINE_EXCEEDED, "the agent said nothing for too long"});
    return;
  }
  if (++quiet_beats_ < kQuietBeats) return;
  ControllerFrame frame;
  frame.mutable_ping();
  Send(std::move(frame));
}

}  // namespace bunker::controller
