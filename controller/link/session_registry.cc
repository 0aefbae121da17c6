#include "controller/link/session_registry.h"

#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "controller/link/grpc_status.h"
#include "controller/link/link_codec.h"

namespace bunker::controller {
namespace {

constexpr uint32_t kProtocolVersion = 1;
constexpr uint64_t kBeats = 10;  // a ping period

constexpr char kQuarantineReason[] =
    "two agents use this worker's credential; stop one of them (a cloned disk or state folder "
    "must join anew under another name), the other is let in after a minute";

// Turns a stream away once what the engine decided is durable.
void Refuse(Turn& turn, std::shared_ptr<AgentStream> stream, absl::Status why) {
  turn.AfterCommit([stream = std::move(stream), why = std::move(why)](const absl::Status&) {
    stream->Abort(ToLinkStatus(why));
  });
}

}  // namespace

SessionRegistry::SessionRegistry(Core& core, Options options, OnBegin on_begin)
    : core_(core), options_(options), on_begin_(std::move(on_begin)) {
  resume_ = [this](uint64_t number, const std::function<void(AgentSession&)>& then) {
    const auto it = sessions_.find(number);
    if (it != sessions_.end()) then(*it->second);
  };
  watch_ = core_.Watch([this](const ChangeSet& changes) { OnChanges(changes); });
  beat_timer_ = core_.loop().AddTimer(options_.session.ping_period / kBeats, [this] { Beat(); });
}

SessionRegistry::~SessionRegistry() {
  if (watch_ != 0) core_.Unwatch(watch_);
  core_.loop().CancelTimer(beat_timer_);
  for (auto& [number, opening] : opening_) {
    core_.loop().CancelTimer(opening.timer);
    opening.stream->Abort(grpc::Status::CANCELLED);
  }
  for (auto& [number, session] : sessions_) session->stream()->Abort(grpc::Status::CANCELLED);
}

void SessionRegistry::OnOpen(Engine& engine, Turn& turn, uint64_t number,
                             std::shared_ptr<AgentStream> stream,
                             absl::StatusOr<std::string> credential_sha256) {
  if (closed_) {
    return Refuse(turn, std::move(stream), absl::UnavailableError("the controller is stopping"));
  }
  if (!credential_sha256.ok()) {
    return Refuse(turn, std::move(stream), credential_sha256.status());
  }
  const auto worker = engine.AuthenticateWorker(*credential_sha256);
  if (!worker.ok()) return Refuse(turn, std::move(stream), worker.status());
  // An agent dials once at a time: of two streams without a hello, the newer one counts.
  if (const auto older = opening_of_worker_.find((*worker)->id);
      older != opening_of_worker_.end()) {
    TakeOpening(older->second)
        ->stream->Abort({grpc::StatusCode::ABORTED, "a newer stream of this worker came"});
  }
  opening_of_worker_[(*worker)->id] = number;
  Opening& opening = opening_[number];
  opening.worker_id = (*worker)->id;
  opening.credential_sha256 = *credential_sha256;
  opening.stream = std::move(stream);
  opening.timer = core_.loop().AddTimer(options_.hello_timeout, [this, number] {
    if (const auto late = TakeOpening(number))
      late->stream->Abort({grpc::StatusCode::DEADLINE_EXCEEDED, "no hello came"});
  });
  opening.stream->ReadNext();
}

void SessionRegistry::OnFrame(Engine& engine, Turn& turn, uint64_t number,
                              link::v1::AgentFrame frame) {
  if (const auto it = sessions_.find(number); it != sessions_.end())
    return it->second->OnFrame(engine, turn, std::move(frame), resume_);
  std::optional<Opening> opening = TakeOpening(number);
  if (!opening) return;  // replaced, or over
  if (frame.has_hello()) return OnHello(engine, turn, number, *std::move(opening), frame.hello());
  Refuse(turn, opening->stream,
         absl::FailedPreconditionError("the first frame of a session must be the hello"));
}

std::optional<SessionRegistry::Opening> SessionRegistry::TakeOpening(uint64_t number) {
  auto node = opening_.extract(number);
  if (node.empty()) return std::nullopt;
  core_.loop().CancelTimer(node.mapped().timer);
  opening_of_worker_.erase(node.mapped().worker_id);
  return std::move(node.mapped());
}

void SessionRegistry::OnHello(Engine& engine, Turn& turn, uint64_t number, Opening opening,
                              const link::v1::Hello& hello) {
  if (hello.protocol_version() != kProtocolVersion) {
    return Refuse(turn, opening.stream,
                  absl::FailedPreconditionError(
                      "this controller speaks version 1 of the link; bring agent and controller "
                      "to versions that fit"));
  }
  // It may have been revoked since the stream was opened.
  if (const auto worker = engine.AuthenticateWorker(opening.credential_sha256); !worker.ok())
    return Refuse(turn, opening.stream, worker.status());
  if (!PassesFence(turn, opening, hello)) return;
  auto state = engine.ConnectWorker(turn, opening.worker_id, FromProto(hello.facts()),
                                    hello.boot_id(), hello.agent_version());
  if (!state.ok()) return Refuse(turn, opening.stream, state.status());
  turn.AfterCommit([this, number, hello, opening = std::move(opening),
                    state = *std::move(state)](const absl::Status& status) mutable {
    if (!status.ok()) return opening.stream->Abort(ToLinkStatus(status));
    if (closed_) return opening.stream->Abort({grpc::StatusCode::UNAVAILABLE, "stopping"});
    // Where its end was told already, nobody would take the session away again.
    if (opening.stream->ended()) return Disconnect(opening.worker_id);
    Begin(number, std::move(opening), hello, std::move(state));
  });
}

bool SessionRegistry::PassesFence(Turn& turn, const Opening& opening,
                                  const link::v1::Hello& hello) {
  const std::string run_id = hello.boot_id() + "/" + hello.instance_id();
  const SessionFence::Verdict verdict = fences_[opening.worker_id].OnHello(run_id, turn.now());
  if (verdict == SessionFence::Verdict::kAdmit) return true;
  if (verdict == SessionFence::Verdict::kQuarantine) {
    Log(Severity::kError, "worker.quarantined",
        {{"worker", opening.worker_id}, {"boot_id", hello.boot_id()},
         {"why", kQuarantineReason}});
    Dismiss(opening.worker_id, kQuarantineReason, /*final=*/false);
  }
  Refuse(turn, opening.stream,
         ReasonError(absl::StatusCode::kAborted, "RESOURCE_IN_USE", kQuarantineReason));
  return false;
}

void SessionRegistry::Begin(uint64_t number, Opening opening, const link::v1::Hello& hello,
                            WorkerSession state) {
  const std::string worker_id = opening.worker_id;
  Dismiss(worker_id, "a newer session of this worker began", /*final=*/false);
  auto session = std::make_unique<AgentSession>(
      number, worker_id, std::move(opening.credential_sha256), std::move(opening.stream),
      core_.loop(), options_.session);
  AgentSession& begun = *session;
  sessions_[number] = std::move(session);
  by_worker_[worker_id] = number;
  Log(Severity::kInfo, "worker.connected",
      {{"worker", worker_id}, {"session", number}, {"boot_id", hello.boot_id()},
       {"version", hello.agent_version()}});
  begun.Welcome(VersionMap(hello.held().begin(), hello.held().end()), std::move(state), rng_);
  begun.stream()->ReadNext();
  on_begin_(worker_id);
}

void SessionRegistry::Dismiss(const std::string& worker_id, const std::string& reason,
                              bool final) {
  const auto it = by_worker_.find(worker_id);
  if (it == by_worker_.end()) return;
  const auto session = sessions_.find(it->second);
  session->second->Goodbye(reason, final);
  sessions_.erase(session);
  by_worker_.erase(it);
}

void SessionRegistry::Disconnect(const std::string& worker_id) {
  core_.Post([this, worker_id](Engine& engine, Turn& turn) {
    if (by_worker_.count(worker_id) == 0) engine.DisconnectWorker(turn, worker_id);
  });
}

void SessionRegistry::OnEnd(Engine& engine, Turn& turn, uint64_t number) {
  TakeOpening(number);
  const auto it = sessions_.find(number);
  if (it == sessions_.end()) return;
  const std::string worker_id = it->second->worker_id();
  Log(Severity::kInfo, "worker.disconnected", {{"worker", worker_id}, {"session", number}});
  by_worker_.erase(worker_id);
  sessions_.erase(it);
  engine.DisconnectWorker(turn, worker_id);
}

void SessionRegistry::NotePing(uint64_t number) {
  MutexLock lock(pings_mutex_);
  pings_.insert(number);
}

void SessionRegistry::Beat() {
  beat_timer_ = core_.loop().AddTimer(options_.session.ping_period / kBeats, [this] { Beat(); });
  std::unordered_set<uint64_t> pings;
  {
    MutexLock lock(pings_mutex_);
    pings.swap(pings_);
  }
  if (!pings.empty()) {
    core_.Post([this, pings = std::move(pings)](Engine& engine, Turn& turn) {
      for (const uint64_t number : pings) {
        const auto it = sessions_.find(number);
        if (it == sessions_.end()) continue;
        it->second->Heard();
        engine.OnHeartbeat(turn, it->second->worker_id());
      }
    });
  }
  ++beats_;
  for (const auto& [number, session] : sessions_) {
    if (number % kBeats == beats_ % kBeats) session->Beat();
  }
}

void SessionRegistry::OnChanges(const ChangeSet& changes) {
  for (const Change<Worker>& change : changes.workers) {
    const auto it = by_worker_.find(change.id);
    if (it == by_worker_.end()) continue;
    const bool valid = change.after != nullptr &&
                       change.after->credential_sha256 ==
                           sessions_.at(it->second)->credential_sha256();
    if (!valid) {
      Dismiss(change.id, "this worker's credential is no longer valid", /*final=*/true);
      Disconnect(change.id);
    }
  }
  for (const Change<DesiredRow>& change : changes.desired) {
    const DesiredRow& row = change.after != nullptr ? *change.after : *change.before;
    const auto it = by_worker_.find(row.worker_id);
    if (it != by_worker_.end()) sessions_.at(it->second)->OnDesired(row.name, change.after);
  }
}

bool SessionRegistry::SendOpenTunnel(const std::string& worker_id,
                                     const link::v1::OpenTunnel& request) {
  const auto it = by_worker_.find(worker_id);
  return it != by_worker_.end() && sessions_.at(it->second)->SendOpenTunnel(request);
}

void SessionRegistry::CloseAll(const std::string& reason) {
  if (std::exchange(closed_, true)) return;
  core_.Unwatch(std::exchange(watch_, 0));
  core_.loop().CancelTimer(std::exchange(beat_timer_, 0));
  for (auto& [number, opening] : opening_) {
    core_.loop().CancelTimer(opening.timer);
    opening.stream->Abort({grpc::StatusCode::UNAVAILABLE, reason});
  }
  opening_.clear();
  opening_of_worker_.clear();
  for (auto& [number, session] : sessions_) session->Goodbye(reason, /*final=*/false);
  sessions_.clear();
  by_worker_.clear();
}

}  // namespace bunker::controller
