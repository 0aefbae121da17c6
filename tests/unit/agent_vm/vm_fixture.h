// What the tests that boot a real VM share: a folder as the agent would make it, small disks, the
// guest kernel, and an initrd whose /init is tiny_guest.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/vm/qemu_microvm.h"
#include "common/base/cancel.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// Not in the agent's default range, so that a test never meets a real VM's user.
inline constexpr uid_t kTestUid = 65301;

// One folder under /tmp, removed at the end. Kills what it started.
class VmFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // A spec whose files exist; `name` is the VM folder's name.
  VmSpec MakeSpec(const std::string& name, uid_t uid = kTestUid);

  // Start() with a caller that journals into `journalled_`.
  absl::StatusOr<VmHandle> Start(const VmSpec& spec);

  std::string root_;
  QemuMicrovm driver_{QemuOptions{}};
  CancelToken cancel_;
  RunningVm journalled_;            // the newest
  std::vector<RunningVm> started_;  // all, to be killed at the end
};

// The guest's end of the channel, by lines.
class TinyGuest {
 public:
  explicit TinyGuest(UniqueFd fd) : fd_(std::move(fd)) {}

  // The next line; "(timeout)" or "(closed)" where none comes.
  std::string ReadLine(absl::Duration timeout = absl::Seconds(60));
  void Send(const std::string& word);
  std::string Ask(const std::string& word);

 private:
  UniqueFd fd_;
  std::string buffer_;
};

// "Uid", "CapEff", … of /proc/PID/status, without the blanks around it.
std::string StatusField(pid_t pid, const std::string& field);

// Where /proc/PID/ns/NAME leads.
std::string NamespaceOf(pid_t pid, const std::string& name);

}  // namespace bunker::agent
