// A guest that goes on elsewhere: many from one snapshot, each with its own memory and disk.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/vm/memory_file.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "tests/unit/agent_vm/vm_fixture.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class QemuSnapshotTest : public VmFixture {
 protected:
  TinyGuest Connect(const RunningVm& record) {
    absl::StatusOr<UniqueFd> channel = driver_.OpenChannel(record);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return TinyGuest(channel.ok() ? *std::move(channel) : UniqueFd());
  }

  // A snapshot of a guest that has counted to one; its disk stays at `disk_`.
  void TakeSnapshot() {
    VmSpec spec = MakeSpec("bkr_source.1");
    spec.snapshots = true;
    absl::StatusOr<std::string> basis = driver_.SnapshotBasis(spec);
    ASSERT_TRUE(basis.ok()) << basis.status();
    absl::StatusOr<VmHandle> vm = Start(spec);
    ASSERT_TRUE(vm.ok()) << vm.status();
    {
      TinyGuest guest = Connect(vm->record());
      ASSERT_EQ(guest.ReadLine(), "READY");
      ASSERT_EQ(guest.Ask("count"), "1");
    }
    EXPECT_THAT(driver_.Snapshot(vm->record(), *basis).status().message(), HasSubstr("paused"));
    ASSERT_TRUE(driver_.Pause(vm->record()).ok());
    absl::StatusOr<VmSnapshot> snapshot = driver_.Snapshot(vm->record(), *basis);
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    snapshot_ = *std::move(snapshot);
    disk_ = root_ + "/template.ext4";
    fs::copy_file(spec.rw_disk, disk_);
    ASSERT_TRUE(driver_.Kill(*vm).ok());
  }

  VmSpec CloneSpec(const std::string& name, uid_t uid) {
    VmSpec spec = MakeSpec(name, uid);
    fs::remove(spec.rw_disk);
    fs::copy_file(disk_, spec.rw_disk);
    EXPECT_EQ(chmod(spec.rw_disk.c_str(), 0600), 0);
    EXPECT_EQ(chown(spec.rw_disk.c_str(), uid, uid), 0);
    return spec;
  }

  absl::StatusOr<VmHandle> Restore(const VmSpec& spec, const VmSnapshot& snapshot) {
    return driver_.Restore(
        spec, snapshot,
        [this](const RunningVm& record) {
          journalled_ = record;
          started_.push_back(record);
          return absl::OkStatus();
        },
        cancel_);
  }

  std::string HashOf(const UniqueFd& fd) {
    const absl::StatusOr<std::string> bytes =
        ReadFile(absl::StrCat("/proc/self/fd/", fd.get()), 1 << 30);
    return bytes.ok() ? Sha256Hex(*bytes) : bytes.status().ToString();
  }

  VmSnapshot snapshot_;
  std::string disk_;
};

TEST_F(QemuSnapshotTest, ManyGoOnFromOneAndNoneChangesIt) {
  TakeSnapshot();
  const std::string before = HashOf(snapshot_.memory);
  absl::StatusOr<VmHandle> first = Restore(CloneSpec("bkr_a.1", kTestUid), snapshot_);
  ASSERT_TRUE(first.ok()) << first.status();
  absl::StatusOr<VmHandle> second = Restore(CloneSpec("bkr_b.1", kTestUid + 1), snapshot_);
  ASSERT_TRUE(second.ok()) << second.status();
  TinyGuest a = Connect(first->record());
  TinyGuest b = Connect(second->record());
  EXPECT_EQ(a.Ask("count"), "2");
  EXPECT_EQ(a.Ask("count"), "3");
  EXPECT_EQ(b.Ask("count"), "2") << "its memory is its own";
  EXPECT_EQ(a.Ask("mount-rw"), "bytes=5");
  EXPECT_EQ(a.Ask("mount-rw").substr(0, 5), "mount");
  EXPECT_EQ(b.Ask("mount-rw"), "bytes=5") << "its disk is its own";
  EXPECT_EQ(HashOf(snapshot_.memory), before);

  // And one of a restored one: its own pages over those that it shares.
  ASSERT_TRUE(driver_.Pause(first->record()).ok());
  absl::StatusOr<VmSnapshot> later = driver_.Snapshot(first->record(), snapshot_.basis);
  ASSERT_TRUE(later.ok()) << later.status();
  ASSERT_TRUE(driver_.Resume(first->record()).ok());
  EXPECT_EQ(a.Ask("count"), "4") << "the one it was taken of goes on";
  disk_ = root_ + "/bkr_a.1/rw.ext4";
  absl::StatusOr<VmHandle> third = Restore(CloneSpec("bkr_c.1", kTestUid + 2), *later);
  ASSERT_TRUE(third.ok()) << third.status();
  TinyGuest c = Connect(third->record());
  EXPECT_EQ(c.Ask("count"), "4");
  EXPECT_EQ(HashOf(snapshot_.memory), before);
}

TEST_F(QemuSnapshotTest, WhatWasCopiedAheadIsMadeTheMomentOfThePause) {
  TakeSnapshot();
  absl::StatusOr<VmHandle> clone = Restore(CloneSpec("bkr_a.1", kTestUid), snapshot_);
  ASSERT_TRUE(clone.ok()) << clone.status();
  absl::StatusOr<UniqueFd> ahead = MakeMemoryFile("ahead"), devices = MakeMemoryFile("devices");
  ASSERT_TRUE(ahead.ok() && devices.ok());
  ASSERT_TRUE(driver_.SaveAhead(clone->record(), ahead->get()).ok());
  const std::string then = HashOf(*ahead);
  TinyGuest guest = Connect(clone->record());
  EXPECT_EQ(guest.Ask("count"), "2");
  EXPECT_EQ(guest.Ask("mount-rw"), "bytes=5") << "more pages of its own than before";
  ASSERT_TRUE(driver_.Pause(clone->record()).ok());
  ASSERT_TRUE(driver_.Save(clone->record(), ahead->get(), devices->get()).ok());
  const absl::StatusOr<VmSnapshot> whole = driver_.Snapshot(clone->record(), snapshot_.basis);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_NE(then, HashOf(*ahead));
  EXPECT_EQ(HashOf(*ahead), HashOf(whole->memory));
}

TEST_F(QemuSnapshotTest, TheSnapshotCannotBeWritten) {
  TakeSnapshot();
  for (const UniqueFd* fd : {&snapshot_.memory, &snapshot_.devices}) {
    EXPECT_EQ(pwrite(fd->get(), "x", 1, 0), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(ftruncate(fd->get(), 0), -1);
    EXPECT_EQ(fallocate(fd->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd->get(), 0), MAP_FAILED);
  }
}

TEST_F(QemuSnapshotTest, ARestoredVmSeesOfProcItsOwnFilesAlone) {
  TakeSnapshot();
  absl::StatusOr<VmHandle> vm = Restore(CloneSpec("bkr_jail.1", kTestUid), snapshot_);
  ASSERT_TRUE(vm.ok()) << vm.status();
  const std::string proc = absl::StrCat("/proc/", vm->record().process.pid);
  std::ifstream mounts(proc + "/mounts");
  std::set<std::string> of_proc;
  for (std::string line; std::getline(mounts, line);) {
    if (line.rfind("proc ", 0) == 0) of_proc.insert(line.substr(5));
  }
  ASSERT_EQ(of_proc.size(), 1u);
  EXPECT_THAT(*of_proc.begin(), StartsWith("/vm/fds proc ro,nosuid,nodev,noexec"));
  EXPECT_FALSE(fs::exists(proc + "/root/proc"));
  EXPECT_FALSE(fs::exists(proc + "/root/vm/fds/../../proc"));
  EXPECT_EQ(StatusField(vm->record().process.pid, "CapEff"), "0000000000000000");
}

TEST_F(QemuSnapshotTest, ABasisThatDiffersIsRefused) {
  TakeSnapshot();
  VmSpec spec = CloneSpec("bkr_more.1", kTestUid);
  spec.memory_mb = 300;
  EXPECT_THAT(Restore(spec, snapshot_).status().message(), HasSubstr("another form"));
  spec.memory_mb = 256;
  snapshot_.basis = snapshot_.basis.substr(0, 65) + "1000";
  EXPECT_THAT(Restore(spec, snapshot_).status().message(), HasSubstr("1000 kHz"));
}

TEST_F(QemuSnapshotTest, BrokenDeviceStateEndsTheVmAndLeavesNothing) {
  TakeSnapshot();
  absl::StatusOr<std::string> state =
      ReadFile(absl::StrCat("/proc/self/fd/", snapshot_.devices.get()), 1 << 20);
  ASSERT_TRUE(state.ok());
  absl::StatusOr<UniqueFd> broken = MakeMemoryFile("broken");
  ASSERT_TRUE(broken.ok());
  const size_t half = state->size() / 2;
  ASSERT_EQ(write(broken->get(), state->data(), half), static_cast<ssize_t>(half));
  snapshot_.devices = *std::move(broken);
  const VmSpec spec = CloneSpec("bkr_broken.1", kTestUid);
  EXPECT_FALSE(Restore(spec, snapshot_).ok());
  EXPECT_FALSE(driver_.Adopt(journalled_).ok());
  fs::remove(spec.rw_disk);
  EXPECT_TRUE(fs::is_empty(spec.folder));
}

TEST_F(QemuSnapshotTest, TheDiskGrowsUnderTheGuest) {
  TakeSnapshot();
  const VmSpec spec = CloneSpec("bkr_grow.1", kTestUid);
  ASSERT_EQ(truncate(spec.rw_disk.c_str(), 300 << 20), 0);
  absl::StatusOr<VmHandle> vm = Restore(spec, snapshot_);
  ASSERT_TRUE(vm.ok()) << vm.status();
  TinyGuest guest = Connect(vm->record());
  EXPECT_EQ(guest.Ask("rw-sectors"), std::to_string(64 * 2048));
  ASSERT_TRUE(driver_.GrowDisk(vm->record(), 300 << 20).ok());
  std::string sectors;
  do {
    sectors = guest.Ask("rw-sectors");
  } while (sectors == std::to_string(64 * 2048));
  EXPECT_EQ(sectors, std::to_string(300 * 2048));
  EXPECT_FALSE(driver_.GrowDisk(vm->record(), 301 << 20).ok()) << "over the limit of its files";
}

TEST_F(QemuSnapshotTest, AVmThatWasNotStartedForItHasNoSnapshot) {
  absl::StatusOr<VmHandle> vm = Start(MakeSpec("bkr_plain.1"));
  ASSERT_TRUE(vm.ok()) << vm.status();
  ASSERT_EQ(Connect(vm->record()).ReadLine(), "READY");
  ASSERT_TRUE(driver_.Pause(vm->record()).ok());
  EXPECT_EQ(driver_.Snapshot(vm->record(), "").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(driver_.Resume(vm->record()).ok());
}

}  // namespace
}  // namespace bunker::agent
