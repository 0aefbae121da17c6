// Guests that are attacked from inside, small guests, and guests whose disks are not what they
// should be. Like guest_e2e_test.cc it is run by tests/support/guest_images.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "tests/unit/agent_exec/booted_guest.h"

namespace bunker::agent {
namespace {

using testing::HasSubstr;

std::string Need(const char* variable) {
  const char* value = std::getenv(variable);
  BUNKER_CHECK(value != nullptr);
  return value;
}

class AttackTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/bunker-guest-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    images_ = {Need("BUNKER_TEST_KERNEL"), Need("BUNKER_TEST_INITRD"), Need("BUNKER_TEST_BASE"),
               folder_};
  }
  void TearDown() override {
    channel_.reset();
    guest_.reset();
    EXPECT_EQ(std::system(("rm -rf '" + folder_ + "'").c_str()), 0);
  }
  absl::Status Boot() {
    guest_ = std::make_unique<BootedGuest>(images_);
    channel_ = std::make_unique<GuestChannel>(guest_->ChannelOptions());
    return channel_->WaitReady(absl::Seconds(60));
  }
  RunOutcome Shell(std::string line, uint32_t timeout_ms = 60'000) {
    ExecSpec spec;
    spec.shell = std::move(line);
    spec.allow_root = true;
    spec.timeout_ms = timeout_ms;
    return RunInGuest(*channel_, spec);
  }

  std::string folder_;
  BootedGuest::Images images_;
  std::unique_ptr<BootedGuest> guest_;
  std::unique_ptr<GuestChannel> channel_;
};

TEST_F(AttackTest, MemoryProcessesAndDiskRunOutAndTheGuestServesOn) {
  images_.memory_mb = 96;  // the cloud kernel itself takes up to 62 MiB; 64 is too little for it
  const absl::Status ready = Boot();
  ASSERT_TRUE(ready.ok()) << ready;
  const RunOutcome hog = Shell("tail /dev/zero");
  ASSERT_TRUE(hog.status.ok()) << hog.status;
  EXPECT_EQ(hog.result.signal, "SIGKILL") << "by the OOM killer";
  EXPECT_FALSE(hog.result.timed_out);
  EXPECT_EQ(Shell("echo alive").out, "alive\n");

  const RunOutcome bomb = Shell("b() { b | b & }; b; while :; do :; done", 3000);
  ASSERT_TRUE(bomb.status.ok()) << bomb.status;
  EXPECT_TRUE(bomb.result.timed_out || bomb.result.signal == "SIGKILL");
  EXPECT_EQ(Shell("echo alive").out, "alive\n");
  EXPECT_EQ(Shell("ps | grep -c '[b] |'").out, "0\n");

  EXPECT_THAT(Shell("dd if=/dev/zero of=/full bs=1M").err, HasSubstr("No space left"));
  EXPECT_EQ(Shell("echo alive; rm /full").out, "alive\n");
}

TEST_F(AttackTest, RootInTheGuestMayBreakItsCgroupsAndHarmsItself) {
  ASSERT_TRUE(Boot().ok());
  EXPECT_EQ(Shell("umount -l /sys/fs/cgroup; umount -l /proc; umount -l /dev; echo done").out,
            "done\n");
  const RunOutcome run = Shell("setsid sleep 4242 & sleep 4242", 500);
  EXPECT_TRUE(run.result.timed_out) << run.status;
  EXPECT_EQ(Shell("mount -t proc proc /proc; pidof sleep").out, "") << "killed all the same";
}

TEST_F(AttackTest, AnImageWithoutAnythingBoots) {
  // No /etc, no /proc, no shell; mount points that are links to elsewhere, or files.
  const std::string make =
      "cd '" + folder_ +
      "' && mkdir -p root/bin && ln -s /bin root/proc && ln -s ../.. root/sys && "
      "echo x > root/dev && ln -s /nowhere root/run && cp \"$(command -v busybox || echo '" +
      folder_ +
      "/none')\" root/bin/only 2>/dev/null; "
      "truncate -s 16M base2 && mkfs.ext4 -q -F -d root -O ^has_journal -m 0 -b 4096 base2";
  ASSERT_EQ(std::system(make.c_str()), 0);
  images_.base = folder_ + "/base2";
  const absl::Status ready = Boot();
  ASSERT_TRUE(ready.ok()) << ready;
  const RunOutcome run = Shell("true");
  EXPECT_EQ(run.result.exit_code, 127);
  EXPECT_THAT(run.err, HasSubstr("can't run /bin/sh"));
  EXPECT_TRUE(channel_->Ping(absl::Seconds(5)).ok());
}

TEST_F(AttackTest, ADiskThatCannotBeMountedIsToldNotHidden) {
  images_.blank_rw_disk = true;
  const absl::Status ready = Boot();
  EXPECT_EQ(ReasonOf(ready), "BUNKER_NOT_RUNNING") << ready;
  EXPECT_THAT(std::string(ready.message()), HasSubstr("mount ext4 on /m/rw"));
  EXPECT_TRUE(channel_->Shutdown(absl::Seconds(1)).ok());
  EXPECT_NE(guest_->WaitForEnd(absl::Seconds(20)), -1);
}

}  // namespace
}  // namespace bunker::agent
