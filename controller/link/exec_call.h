// One command in a bunker, run to its end over a tunnel: what to run, what came of it, and the
// conversation between them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "common/base/mutex.h"
#include "controller/link/tunnel_listener.h"

namespace bunker::controller {

struct ExecSpec {
  std::string worker_id;
  std::string bunker_id;
  uint32_t incarnation = 0;

  std::vector<std::string> argv;  // exactly one of argv and shell
  std::string shell;
  std::string cwd;                // empty: the image's
  std::map<std::string, std::string> env;
  std::string user;               // empty: the image's
  bool allow_root = false;        // the caller may run as uid 0
  bool default_to_1000 = false;   // no user, and the image's is uid 0: run as 1000
  std::string stdin_data;
  absl::Duration timeout = absl::Seconds(60);
  uint64_t max_output_bytes = 1 << 20;  // kept of each stream; the rest is counted
};

struct ExecResult {
  int32_t exit_code = 0;
  std::string signal;  // "SIGKILL"; empty: it exited
  std::string stdout_data;
  std::string stderr_data;
  uint64_t stdout_bytes = 0;  // written in all
  uint64_t stderr_bytes = 0;
  bool timed_out = false;
  double duration_ms = 0;
  bool truncated() const {
    return stdout_data.size() < stdout_bytes || stderr_data.size() < stderr_bytes;
  }
};

// Thread-safe. `done` runs exactly once, on whichever thread brings the end: it only posts.
class ExecCall final : public TunnelListener {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<ExecResult>)>;

  ExecCall(ExecSpec spec, Done done);

  // Nobody waits any more: the process tree is ended, and `done` gets CANCELLED now.
  void Cancel(const absl::Status& why);

  void OnOpen(std::shared_ptr<TunnelStream> stream) override;
  void OnFrame(link::v1::AgentTunnelFrame frame) override;
  void OnWritten() override;
  void OnClosed(const absl::Status& why) override;

 private:
  void SendStart() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpStdin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Append(const link::v1::ExecOutput& output) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives the result, if none was given yet, and hands out the stream: what ends it comes second,
  // since its end would count as a broken connection.
  std::shared_ptr<TunnelStream> Finish(absl::StatusOr<ExecResult> result);

  Mutex mutex_;
  ExecSpec spec_ ABSL_GUARDED_BY(mutex_);
  Done done_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<TunnelStream> stream_ ABSL_GUARDED_BY(mutex_);
  ExecResult result_ ABSL_GUARDED_BY(mutex_);
  size_t stdin_sent_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stdin_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bunker::controller
