#include "agent/reconcile/guest_shell.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "common/base/rng.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kEntropyBytes = 64;
constexpr char kNoMachineId[] = "00000000000000000000000000000000";

struct Ended {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
};

}  // namespace

absl::Status RunWarmUpShell(GuestChannel& channel, const std::string& script,
                            absl::Duration timeout, CancelToken& cancel) {
  ExecSpec shell;
  shell.shell = script;
  shell.user = "0:0";
  shell.allow_root = true;
  shell.open_stdin = false;
  const auto ended = std::make_shared<Ended>();
  const auto end = [ended] {
    const std::lock_guard<std::mutex> lock(ended->mutex);
    ended->done = true;
    ended->changed.notify_all();
  };
  ExecCallbacks callbacks;
  callbacks.on_exit = [end](const ExecResult&) { end(); };
  callbacks.on_error = [end](const absl::Status&) { end(); };
  ASSIGN_OR_RETURN(const std::unique_ptr<ExecHandle> exec,
                   channel.StartExec(shell, std::move(callbacks)));
  std::unique_lock<std::mutex> lock(ended->mutex);
  const bool in_time = ended->changed.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                                               [&] { return ended->done; });
  lock.unlock();
  RETURN_IF_ERROR(cancel.Check());
  if (!in_time) return absl::DeadlineExceededError("its first shell did not end in time");
  return absl::OkStatus();
}

guest::v1::GuestConfig FreshConfig() {
  guest::v1::GuestConfig config;
  SystemRng rng;
  config.set_entropy(rng.Bytes(kEntropyBytes));
  config.set_machine_id(kNoMachineId);
  config.set_realtime_ns(static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())));
  return config;
}

}  // namespace bunker::agent
