#include "agent/vm/qemu_microvm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent_vm/vm_fixture.h"

namespace bunker::agent {
namespace {

using ::testing::HasSubstr;

class QemuMicrovmTest : public VmFixture {};

TEST_F(QemuMicrovmTest, BootsAnswersAndPowersOff) {
  const VmSpec spec = MakeSpec("bkr_boot.1");
  absl::StatusOr<VmHandle> vm = Start(spec);
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ(vm->record(), journalled_);
  absl::StatusOr<UniqueFd> channel = driver_.OpenChannel(vm->record());
  ASSERT_TRUE(channel.ok()) << channel.status();
  TinyGuest guest(*std::move(channel));
  ASSERT_EQ(guest.ReadLine(), "READY");
  EXPECT_EQ(guest.Ask("ping"), "pong");
  EXPECT_EQ(guest.Ask("nics"), "lo ");
  EXPECT_EQ(guest.Ask("disks"), "vda:serial=base,ro=1 vdb:serial=rw,ro=0 ");
  guest.Send("off");
  absl::StatusOr<ProcessExit> exit = vm->process().Wait(absl::Seconds(20));
  ASSERT_TRUE(exit.ok()) << exit.status();
  absl::StatusOr<VmExit> end = driver_.Reap(*vm);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(DescribeExit(end->process), "exit code 0") << end->detail;
}

}  // namespace
}  // namespace bunker::agent
