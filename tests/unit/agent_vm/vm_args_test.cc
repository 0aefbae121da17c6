// Golden: the whole argv, so that a device or a flag that slips in is seen in review.
#include "agent/vm/vm_args.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace bunker::agent {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Not;

QemuArgs Args() {
  QemuArgs args;
  args.binary = "/usr/bin/qemu-system-x86_64";
  args.name = "bkr_1.1";
  args.tsc_khz = 2445426;
  return args;
}

std::vector<std::string> Golden(std::vector<std::string> accelerator_and_cpu,
                                std::vector<std::string> size, std::string kernel_command_line) {
  std::vector<std::string> argv = {
      "/usr/bin/qemu-system-x86_64", "-name", "bkr_1.1",
      "-no-user-config", "-nodefaults", "-no-reboot", "-nic", "none", "-display", "none",
      "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      "-M", "microvm,acpi=on,isa-serial=off", "-global", "virtio-mmio.force-legacy=false"};
  argv.insert(argv.end(), accelerator_and_cpu.begin(), accelerator_and_cpu.end());
  argv.insert(argv.end(), size.begin(), size.end());
  const std::vector<std::string> rest = {
      "-kernel", "/vm/kernel", "-initrd", "/vm/initrd", "-append", kernel_command_line,
      "-drive", "id=base,if=none,format=raw,read-only=on,file.driver=file,file.locking=on,"
                "file.filename=/vm/base",
      "-device", "virtio-blk-device,drive=base,serial=base,scsi=off",
      "-drive", "id=rw,if=none,format=raw,cache=writeback,discard=unmap,detect-zeroes=unmap,"
                "file.driver=file,file.locking=on,file.filename=/vm/rw",
      "-device", "virtio-blk-device,drive=rw,serial=rw,scsi=off",
      "-device", "virtio-serial-device,id=ports,max_ports=2",
      "-chardev", "ringbuf,id=console,size=64K",
      "-device", "virtconsole,bus=ports.0,nr=0,chardev=console",
      "-chardev", "socket,id=channel,fd=3,server=on,wait=off",
      "-device", "virtserialport,bus=ports.0,nr=1,chardev=channel,id=agent,name=agent",
      "-chardev", "socket,id=control,fd=4,server=on,wait=off",
      "-mon", "chardev=control,mode=control"};
  argv.insert(argv.end(), rest.begin(), rest.end());
  return argv;
}

TEST(VmArgsTest, Tcg) {
  EXPECT_THAT(BuildQemuArgs(Args()),
              ElementsAreArray(Golden({"-accel", "tcg,tb-size=32", "-cpu", "max,-erms,-fsrm"},
                                      {"-smp", "1", "-m", "256M"},
                                      "quiet console=hvc0 rdinit=/init panic=-1 reboot=t "
                                      "tsc_early_khz=2445426 tsc=reliable no_timer_check "
                                      "noreplace-smp mitigations=off")));
}

TEST(VmArgsTest, KvmHasAPinnedCpuWithoutNestingAndKeepsItsMitigations) {
  QemuArgs args = Args();
  args.accelerator = Accelerator::kHardware;
  args.kvm_cpu_model = PinnedCpuModel("AuthenticAMD");
  args.vcpus = 4;
  args.memory_mb = 2048;
  args.kernel_args = {"bunker.x=1"};
  EXPECT_THAT(BuildQemuArgs(args),
              ElementsAreArray(Golden({"-accel", "kvm", "-cpu", "EPYC-v3,-vmx,-svm"},
                                      {"-smp", "4", "-m", "2048M"},
                                      "quiet console=hvc0 rdinit=/init panic=-1 reboot=t "
                                      "tsc_early_khz=2445426 tsc=reliable no_timer_check "
                                      "noreplace-smp bunker.x=1")));
}

// What a snapshot is restored under differs from what it was taken under in this alone.
TEST(VmArgsTest, MemoryThatCanBeCopiedAndMemoryThatIsACopy) {
  const std::vector<std::string> golden =
      Golden({"-accel", "tcg,tb-size=32", "-cpu", "max,-erms,-fsrm"}, {"-smp", "1", "-m", "256M"},
             KernelCommandLine(Args()));
  const auto with_memory = [&](std::vector<std::string> object, std::string machine,
                               std::vector<std::string> after) {
    std::vector<std::string> argv = golden;
    const auto at = std::find(argv.begin(), argv.end(), "-M");
    *(at + 1) = machine;
    argv.insert(argv.insert(at, object.begin(), object.end()) + 4, after.begin(), after.end());
    return argv;
  };
  QemuArgs args = Args();
  args.memory = GuestMemory::kFile;
  EXPECT_THAT(BuildQemuArgs(args),
              ElementsAreArray(with_memory(
                  {"-object", "memory-backend-file,id=ram,size=256M,share=on,mem-path=/vm/fds/5"},
                  "microvm,acpi=on,isa-serial=off,memory-backend=ram", {})));
  args.memory = GuestMemory::kRestored;
  EXPECT_THAT(BuildQemuArgs(args),
              ElementsAreArray(with_memory(
                  {"-object",
                   "memory-backend-file,id=ram,size=256M,share=off,mem-path=/vm/fds/5"},
                  "microvm,acpi=on,isa-serial=off,suppress-vmdesc=on,memory-backend=ram",
                  {"-global", "migration.send-configuration=off", "-incoming", "fd:6"})));
}

TEST(VmArgsTest, ANetworkCardIsATapThatComesAfterAllOtherFiles) {
  QemuArgs args = Args();
  EXPECT_THAT(BuildQemuArgs(args), Contains("none"));
  args.nic_mac = "02:62:6b:00:00:02";
  const std::pair<GuestMemory, const char*> cases[] = {{GuestMemory::kAnonymous, "tap,id=net,fd=5"},
                                                       {GuestMemory::kFile, "tap,id=net,fd=6"},
                                                       {GuestMemory::kRestored, "tap,id=net,fd=7"}};
  for (const auto& [memory, netdev] : cases) {
    args.memory = memory;
    const std::vector<std::string> argv = BuildQemuArgs(args);
    EXPECT_THAT(argv, Contains(netdev));
    EXPECT_THAT(argv, Contains("virtio-net-device,netdev=net,mac=02:62:6b:00:00:02"));
    EXPECT_THAT(argv, Not(Contains("-nic")));
  }
}

TEST(VmArgsTest, FurtherCardsTakeTheDescriptorsAfterTheFirst) {
  QemuArgs args = Args();
  args.nic_mac = "02:00:00:00:00:01";
  args.more_macs = {"02:00:00:00:00:02", "02:00:00:00:00:03"};
  const std::vector<std::string> argv = BuildQemuArgs(args);
  for (const char* word :
       {"tap,id=net,fd=5", "virtio-net-device,netdev=net,mac=02:00:00:00:00:01",
        "tap,id=net1,fd=6", "virtio-net-device,netdev=net1,mac=02:00:00:00:00:02",
        "tap,id=net2,fd=7", "virtio-net-device,netdev=net2,mac=02:00:00:00:00:03"})
    EXPECT_THAT(argv, Contains(word));
}

TEST(VmArgsTest, BothDisksShareOneLimit) {
  QemuArgs args = Args();
  for (const std::string& argument : BuildQemuArgs(args))
    EXPECT_THAT(argument, Not(HasSubstr("throttling")));
  args.disk_bytes_per_s = 1 << 20;
  args.disk_iops = 50;
  const std::string limits =
      ",throttling.group=disks,throttling.bps-total=1048576,throttling.iops-total=50";
  EXPECT_THAT(BuildQemuArgs(args),
              AllOf(Contains(AllOf(HasSubstr("id=base,"), HasSubstr(limits))),
                    Contains(AllOf(HasSubstr("id=rw,"), HasSubstr(limits)))));
}

TEST(VmArgsTest, CpuModelsAreNamedVersions) {
  EXPECT_EQ(PinnedCpuModel("AuthenticAMD"), "EPYC-v3");
  EXPECT_EQ(PinnedCpuModel("GenuineIntel"), "Broadwell-v4");
  EXPECT_EQ(PinnedCpuModel(""), "Westmere-v1");
}

TEST(VmArgsTest, AnUnknownTscIsLeftOut) {
  QemuArgs args = Args();
  args.tsc_khz = 0;
  EXPECT_THAT(KernelCommandLine(args), Not(HasSubstr("tsc")));
}

}  // namespace
}  // namespace bunker::agent
