// QEMU's control protocol (QMP): JSON lines over a unix socket that outlives its clients.
//
// The peer is a process that a guest may have taken over: lines and waits are bounded, and
// nothing it says is trusted beyond the answer asked for. Not thread-safe; every call blocks, at
// most until its deadline.
#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"
#include "common/proc/deadline.h"

namespace bunker::agent {

class QmpClient {
 public:
  // Connects and shakes hands. The monitor serves one client: while another is connected this
  // ends in kDeadlineExceeded. kUnavailable where QEMU is gone.
  static absl::StatusOr<QmpClient> Connect(const std::string& path, Deadline deadline);

  // Runs one command. `arguments` is a JSON object or "". The answer's `return` value as JSON.
  // kFailedPrecondition with QEMU's words where it refuses, kUnavailable where it has gone.
  absl::StatusOr<std::string> Execute(std::string_view command, std::string_view arguments,
                                      Deadline deadline);

  // The same, handing over `fd` with the command (QEMU's getfd and add-fd).
  absl::StatusOr<std::string> ExecuteWithFd(std::string_view command, std::string_view arguments,
                                            int fd, Deadline deadline);

  // "running", "paused", "shutdown", "internal-error", …
  absl::StatusOr<std::string> QueryStatus(Deadline deadline);

  // Ends QEMU after flushing the disks. OK also where it ends before answering.
  absl::Status Quit(Deadline deadline);

  // The next event's name, with its data as JSON after a space ("SHUTDOWN {…}").
  absl::StatusOr<std::string> NextEvent(Deadline deadline);

 private:
  explicit QmpClient(UniqueFd fd) : fd_(std::move(fd)) {}

  absl::StatusOr<std::string> ReadLine(Deadline deadline);
  absl::Status Send(std::string_view line, Deadline deadline);
  absl::Status SendFirstWith(int fd, std::string_view* line, Deadline deadline);

  UniqueFd fd_;
  std::string buffer_;
  std::deque<std::string> events_;  // newest kMaxEvents
};

}  // namespace bunker::agent
