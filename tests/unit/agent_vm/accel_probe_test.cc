#include "agent/vm/accel_probe.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "agent/vm/tsc.h"
#include "agent/vm/unix_socket.h"

namespace bunker::agent {
namespace {

TEST(AccelProbeTest, NamesTheStepForAMissingDevice) {
  CancelToken cancel;
  const KvmVerdict verdict = ProbeKvm("/dev/no-such-kvm", cancel);
  EXPECT_FALSE(verdict.works);
  EXPECT_EQ(verdict.step, "open the KVM device");
  EXPECT_EQ(verdict.detail, "/dev/no-such-kvm: No such file or directory");
}

TEST(AccelProbeTest, ADeviceThatIsNoKvmIsNotTakenForOne) {
  CancelToken cancel;
  const KvmVerdict verdict = ProbeKvm("/dev/null", cancel);
  EXPECT_FALSE(verdict.works);
  EXPECT_EQ(verdict.step, "open the KVM device");
}

// Whatever this host answers, it answers it in time, the same twice, and with a reason where no.
TEST(AccelProbeTest, AnswersForThisHost) {
  CancelToken cancel;
  const KvmVerdict first = ProbeKvm("/dev/kvm", cancel);
  const KvmVerdict second = ProbeKvm("/dev/kvm", cancel);
  EXPECT_EQ(first.works, second.works);
  EXPECT_EQ(first.works, first.step.empty());
  EXPECT_FALSE(first.detail.empty());
  RecordProperty("verdict", first.works ? "kvm" : first.step + ": " + first.detail);
}

TEST(TscTest, IsPlausibleAndRemembered) {
  const uint64_t khz = HostTscKhz();
  EXPECT_GT(khz, 500'000u);
  EXPECT_LT(khz, 10'000'000u);
  EXPECT_EQ(HostTscKhz(), khz);
}

TEST(UnixSocketTest, APathOf107BytesWorksAnd108IsRefusedWithTheRemedy) {
  char folder[] = "/tmp/bunker-socket.XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string prefix = std::string(folder) + "/";
  const std::string fits = prefix + std::string(107 - prefix.size(), 'x');
  absl::StatusOr<UniqueFd> listener = ListenUnix(fits);
  EXPECT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(ConnectUnix(fits, absl::Seconds(1)).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(ListenUnix(fits).status()));
  const absl::Status refused = ListenUnix(fits + "x").status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_NE(refused.message().find("state_dir"), absl::string_view::npos) << refused;
  unlink(fits.c_str());
  rmdir(folder);
}

TEST(UnixSocketTest, AFullBacklogEndsInTime) {
  char folder[] = "/tmp/bunker-socket.XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/s";
  absl::StatusOr<UniqueFd> listener = ListenUnix(path);
  ASSERT_TRUE(listener.ok());
  std::vector<UniqueFd> waiting;
  absl::Status status;
  for (int i = 0; i < 16 && status.ok(); ++i) {
    absl::StatusOr<UniqueFd> connected = ConnectUnix(path, absl::Milliseconds(50));
    status = connected.status();
    if (connected.ok()) waiting.push_back(*std::move(connected));
  }
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  listener->reset();
  EXPECT_TRUE(absl::IsUnavailable(ConnectUnix(path, absl::Seconds(1)).status()));
  unlink(path.c_str());
  rmdir(folder);
}

}  // namespace
}  // namespace bunker::agent
