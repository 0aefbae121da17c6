// A real guest for tests: QEMU under TCG with the project's kernel, initrd and channel, no jail.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/exec/guest_channel.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

class BootedGuest {
 public:
  struct Images {
    std::string kernel, initrd, base;  // files
    std::string folder;                // for the private disk and the socket; exists
    int memory_mb = 256;
    bool blank_rw_disk = false;  // no file system on it
  };

  explicit BootedGuest(const Images& images);  // aborts the test where QEMU can't be started
  ~BootedGuest();

  // A fresh connection to the channel's socket.
  absl::StatusOr<UniqueFd> Connect() const;
  GuestChannel::Options ChannelOptions() const;

  // Waits for QEMU to end by itself; its wait status, or -1.
  int WaitForEnd(absl::Duration timeout);
  const std::string& rw_disk() const { return rw_disk_; }
  pid_t qemu_pid() const { return pid_; }

 private:
  std::string socket_path_;
  std::string rw_disk_;
  pid_t pid_ = -1;
};

// What a command did, as a blocking call.
struct RunOutcome {
  absl::Status status;  // of on_error
  ExecResult result;
  std::string out, err;
};
RunOutcome RunInGuest(GuestChannel& channel, const ExecSpec& spec,
                      std::string_view stdin_data = {});

}  // namespace bunker::agent
