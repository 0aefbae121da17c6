// The image's own command: started once, started again as its policy says, with one log over all
// its runs.
//
// When it ends, whatever it left in the background ends too, as the processes of a container do.
// Not thread-safe: the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "agent/guest/exec_peer.h"
#include "agent/guest/exec_session.h"
#include "agent/guest/launcher.h"
#include "agent/guest/output_ring.h"
#include "agent/guest/output_source.h"

namespace bunker::guest {

class MainProgram final : public ExecPeer, public OutputSource {
 public:
  // Between an end and the next start: kFirstPause, doubled by each end, at most kLongestPause; a
  // run of kSteadyRun begins anew.
  static constexpr uint64_t kFirstPauseMicros = 100'000;
  static constexpr uint64_t kLongestPauseMicros = 30'000'000;
  static constexpr uint64_t kSteadyRunMicros = 10'000'000;

  // What the owner hears, maybe before Start() has returned.
  struct Listener {
    std::function<void()> on_output;   // more to read, or the end
    std::function<void()> on_changed;  // Row() is another
    std::function<void(ExecSession*)> retire;  // takes down what is left of a run
  };

  // The pointers outlive this. `token_base` as ExecSession's.
  MainProgram(const v1::MainProgram& program, Launcher* launcher, Poller* poller, char* scratch,
              uint64_t token_base, Listener listener);

  void Start();
  v1::MainRow Row() const;
  const OutputRing& output() const override { return output_; }
  bool ended() const override;
  const v1::ExecExit& exit() const override { return exit_; }

  // From the loop; as ExecSession's.
  void OnReady(ExecSession::Channel channel);
  void OnReaped(pid_t pid, int wait_status);
  uint64_t NextWakeMicros() const;
  void OnTime(uint64_t now_us);
  // Takes down the run that has ended.
  void Collect();

  size_t Room() const override { return SIZE_MAX; }
  void OnOutput(bool is_stderr, std::string_view data) override;
  void OnStdinTaken(size_t) override {}
  void OnStdinDropped(size_t) override {}
  void OnStarted(pid_t pid) override;
  void OnExit(const v1::ExecExit& exit) override;
  void OnFailed(const CommandError& error) override;

 private:
  void Change(v1::MainRow::State state);
  void Fail(const CommandError& error);
  void StartAgainLater();

  v1::ExecStart start_;
  const v1::MainProgram::Restart restart_;
  Launcher* const launcher_;
  Poller* const poller_;
  char* const scratch_;
  const uint64_t token_base_;
  const Listener listener_;
  OutputRing output_;
  std::unique_ptr<ExecSession> session_;
  v1::MainRow row_;
  v1::ExecExit exit_;
  uint64_t run_began_us_ = 0;
  uint64_t pause_us_ = kFirstPauseMicros;
  uint64_t start_at_us_ = 0;  // 0: no start is due
};

}  // namespace bunker::guest
