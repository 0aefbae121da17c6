#include "controller/link/tunnel_broker.h"

#include <utility>

#include "common/base/reason.h"
#include "common/base/rng.h"

namespace bunker::controller {
namespace {

constexpr size_t kTunnelIdCharacters = 32;

absl::Status NotConnected() {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the bunker's worker is not connected to the controller; the bunker keeps "
                     "running, try again when the worker is online");
}

absl::Status TooMany() {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "too many commands are under way; try again later");
}

absl::Status Stopping() {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the controller is stopping, so the command was ended; look at the bunker "
                     "before running it again");
}

}  // namespace

TunnelBroker::TunnelBroker(Loop& loop, Options options, SendOpen send_open)
    : loop_(loop), options_(options), send_open_(std::move(send_open)) {}

TunnelBroker::~TunnelBroker() {
  *alive_ = false;
  for (auto& [id, waiting] : waiting_) loop_.CancelTimer(waiting.timer);
  for (auto& [id, exec] : execs_) loop_.CancelTimer(exec.timer);
}

TunnelBroker::ExecId TunnelBroker::Exec(ExecSpec spec, ExecCall::Done done) {
  const ExecId id = next_exec_++;
  if (execs_.size() >= options_.max_execs) {
    loop_.Post([done = std::move(done)]() mutable { done(TooMany()); });
    return id;
  }
  const absl::Duration deadline = spec.timeout + options_.open_timeout + options_.exec_slack;
  const std::string worker_id = spec.worker_id;
  const std::string bunker_id = spec.bunker_id;
  const uint32_t incarnation = spec.incarnation;
  auto call = std::make_shared<ExecCall>(
      std::move(spec), [this, id, alive = alive_, &loop = loop_,
                        done = std::move(done)](absl::StatusOr<ExecResult> result) mutable {
        loop.Post([this, id, alive, done = std::move(done), result = std::move(result)]() mutable {
          if (*alive) OnExecDone(id, done, std::move(result));
        });
      });
  ExecState& exec = execs_[id];
  exec.call = call;
  exec.timer = loop_.AddTimer(deadline, [this, id] {
    const auto it = execs_.find(id);
    if (it == execs_.end()) return;
    it->second.timer = 0;
    it->second.call->Cancel(ReasonError(
        absl::StatusCode::kDeadlineExceeded, "UPSTREAM_TIMEOUT",
        "the worker did not tell the command's end in time, not even of its time-out; look at the "
        "bunker before running the command again"));
  });
  OpenTunnel(worker_id, bunker_id, incarnation, std::move(call));
  return id;
}

void TunnelBroker::OnExecDone(ExecId id, ExecCall::Done& done, absl::StatusOr<ExecResult> result) {
  const auto it = execs_.find(id);
  if (it != execs_.end()) {
    loop_.CancelTimer(it->second.timer);
    execs_.erase(it);
  }
  done(std::move(result));
}

void TunnelBroker::CancelExec(ExecId id) {
  const auto it = execs_.find(id);
  if (it == execs_.end()) return;
  it->second.call->Cancel(ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                                      "the caller went away, so the command was ended"));
}

void TunnelBroker::OpenTunnel(const std::string& worker_id, const std::string& bunker_id,
                              uint32_t incarnation, std::shared_ptr<TunnelListener> listener) {
  if (waiting_.size() >= options_.max_waiting) return listener->OnClosed(TooMany());
  const std::string tunnel_id = RandomBase62(kTunnelIdCharacters);
  Waiting waiting;
  waiting.worker_id = worker_id;
  waiting.request.set_tunnel_id(tunnel_id);
  waiting.request.set_bunker_id(bunker_id);
  waiting.request.set_incarnation(incarnation);
  if (!send_open_(worker_id, waiting.request)) return listener->OnClosed(NotConnected());
  waiting.listener = std::move(listener);
  waiting.timer = loop_.AddTimer(options_.open_timeout, [this, tunnel_id] { GiveUp(tunnel_id); });
  waiting_[tunnel_id] = std::move(waiting);
}

void TunnelBroker::GiveUp(const std::string& tunnel_id) {
  auto node = waiting_.extract(tunnel_id);
  if (node.empty()) return;
  node.mapped().listener->OnClosed(
      ReasonError(absl::StatusCode::kDeadlineExceeded, "UPSTREAM_TIMEOUT",
                  "the worker's agent did not open the command's stream in time; try again, and "
                  "look at the worker's log if it stays so"));
}

std::shared_ptr<TunnelListener> TunnelBroker::Claim(const std::string& worker_id,
                                                    const std::string& tunnel_id) {
  const auto it = waiting_.find(tunnel_id);
  if (it == waiting_.end() || it->second.worker_id != worker_id) return nullptr;
  loop_.CancelTimer(it->second.timer);
  std::shared_ptr<TunnelListener> listener = std::move(it->second.listener);
  waiting_.erase(it);
  return listener;
}

void TunnelBroker::CloseAll() {
  // Nothing of this calls back into the broker before the loop's next task.
  for (auto& [id, exec] : execs_) exec.call->Cancel(Stopping());
  for (auto& [id, waiting] : std::exchange(waiting_, {})) {
    loop_.CancelTimer(waiting.timer);
    waiting.listener->OnClosed(Stopping());
  }
}

void TunnelBroker::AskAgain(const std::string& worker_id) {
  for (const auto& [id, waiting] : waiting_) {
    if (waiting.worker_id == worker_id) send_open_(worker_id, waiting.request);
  }
}

}  // namespace bunker::controller
