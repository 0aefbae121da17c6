// One run of our own binary as a child that gets nothing but descriptors.
//
// Not thread-safe, but for Kill().
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/confined/frame_pipe.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

struct ChildEnd {
  int exit_code = -1;  // -1: ended by `signal`
  int signal = 0;
  bool timed_out = false;
  bool broke_framing = false;  // killed for it
  std::string stderr_text;  // the first 4 KiB
};

class ChildProcess {
 public:
  // In the list of descriptors: the pipe on which the child sends frames.
  static constexpr int kEventPipe = -1;

  ChildProcess() = default;
  // Kills and reaps a child that still runs.
  ~ChildProcess();

  // Executes /proc/self/exe as `name` with `argument`, an empty environment, and `fds` as
  // descriptors 3, 4, … (duplicates; the caller's stay open).
  absl::Status Start(const char* name, const char* argument, const std::vector<int>& fds);

  // SIGKILL. Thread-safe once Start() has returned.
  void Kill();

  using FrameHandler = std::function<void(const std::string&)>;

  // Hands each frame to `on_frame` until the child has ended, whatever became of its pipes; kills
  // it once `remaining`, asked at least once a second, says that no time is left, and where it
  // breaks the framing.
  ChildEnd Wait(const std::function<absl::Duration()>& remaining, const FrameHandler& on_frame);

 private:
  // False where what came is no frame.
  bool TakeFrames(FrameBuffer* frames, const FrameHandler& on_frame);
  ChildEnd Reap();

  UniqueFd pidfd_;
  UniqueFd events_;
  UniqueFd errors_;
  bool running_ = false;
};

}  // namespace bunker::agent
