// Snapshots of QEMU: the devices' state by `xen-save-devices-state`, which writes nothing else,
// and the memory read from outside, since QEMU would copy all of it into a stream.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "agent/vm/guest_memory.h"
#include "agent/vm/memory_file.h"
#include "agent/vm/qemu_microvm.h"
#include "agent/vm/qmp_client.h"
#include "agent/vm/tsc.h"
#include "agent/vm/vm_args.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kControlTimeout = absl::Seconds(2);
constexpr absl::Duration kSnapshotTimeout = absl::Seconds(60);
// Two measurements of one clock's rate differ by a few kHz.
constexpr double kTscTolerance = 250e-6;

// Which program it is, without reading it: a package's upgrade replaces the file.
absl::StatusOr<std::string> IdentityOf(const std::string& binary) {
  struct stat info{};
  if (stat(binary.c_str(), &info) != 0) return ErrnoError(errno, binary);
  return absl::StrCat(binary, " ", info.st_dev, " ", info.st_ino, " ", info.st_size, " ",
                      info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec);
}

absl::Status SaveDevices(QmpClient& qmp, int fd, const Deadline& deadline) {
  ASSIGN_OR_RETURN(const UniqueFd write_only, ReopenFile(fd, O_WRONLY));
  RETURN_IF_ERROR(
      qmp.ExecuteWithFd("add-fd", R"({"fdset-id":9})", write_only.get(), deadline).status());
  const absl::Status saved =
      qmp.Execute("xen-save-devices-state", R"({"filename":"/dev/fdset/9","live":false})", deadline)
          .status();
  RETURN_IF_ERROR(qmp.Execute("remove-fd", R"({"fdset-id":9})", deadline).status());
  return saved;
}

}  // namespace

absl::StatusOr<std::string> QemuMicrovm::SnapshotBasis(const VmSpec& spec) {
  ASSIGN_OR_RETURN(const std::string binary, Binary());
  ASSIGN_OR_RETURN(const std::string build, IdentityOf(binary));
  QemuArgs args = ArgsFor(spec, binary);
  args.name = "any";
  args.tsc_khz = 0;
  args.disk_bytes_per_s = args.disk_iops = 0;  // no part of a device
  args.memory = GuestMemory::kAnonymous;
  const std::string all =
      absl::StrCat(build, std::string(1, '\0'), absl::StrJoin(BuildQemuArgs(args), "\n"));
  return absl::StrCat(Sha256Hex(all), "@", HostTscKhz());
}

absl::Status QemuMicrovm::CheckBasis(const VmSpec& spec, const VmSnapshot& snapshot) {
  ASSIGN_OR_RETURN(const std::string basis, SnapshotBasis(spec));
  const std::pair<std::string, std::string> now = absl::StrSplit(basis, '@');
  const std::pair<std::string, std::string> then = absl::StrSplit(snapshot.basis, '@');
  double khz_now = 0, khz_then = 0;
  const bool same_clock = absl::SimpleAtod(now.second, &khz_now) &&
                          absl::SimpleAtod(then.second, &khz_then) &&
                          std::abs(khz_now - khz_then) <= kTscTolerance * khz_now;
  if (now.first == then.first && same_clock) return absl::OkStatus();
  return absl::FailedPreconditionError(
      now.first == then.first
          ? absl::StrCat("the snapshot was taken where the CPU's clock ran at ", then.second,
                         " kHz, here it is ", now.second)
          : "the snapshot was taken with another VMM, or of a VM of another form");
}

absl::Status QemuMicrovm::Save(const RunningVm& record, int memory_fd, int devices_fd) {
  const Deadline deadline(kSnapshotTimeout);
  {
    ASSIGN_OR_RETURN(QmpClient qmp, QmpClient::Connect(record.control_path, deadline));
    ASSIGN_OR_RETURN(const std::string status, qmp.QueryStatus(deadline));
    if (status != "paused") {
      return absl::FailedPreconditionError(
          absl::StrCat("only a paused VM can be snapshotted, and this one is ", status));
    }
    RETURN_IF_ERROR(
        Annotate(SaveDevices(qmp, devices_fd, deadline), "saving the VM's devices"));
  }
  return SaveAhead(record, memory_fd);
}

absl::Status QemuMicrovm::SaveAhead(const RunningVm& record, int memory_fd) {
  // Still the process of the record, not one that got its number.
  RETURN_IF_ERROR(ProcessHandle::Open(record.process).status());
  return CopyGuestMemory(record.process.pid, memory_fd);
}

absl::StatusOr<VmSnapshot> QemuMicrovm::Snapshot(const RunningVm& record, std::string basis) {
  VmSnapshot snapshot;
  snapshot.basis = std::move(basis);
  ASSIGN_OR_RETURN(snapshot.memory, MakeMemoryFile(kGuestMemoryName));
  ASSIGN_OR_RETURN(snapshot.devices, MakeMemoryFile("bunker-devices"));
  RETURN_IF_ERROR(Save(record, snapshot.memory.get(), snapshot.devices.get()));
  RETURN_IF_ERROR(SealMemoryFile(snapshot.memory.get()));
  RETURN_IF_ERROR(SealMemoryFile(snapshot.devices.get()));
  return snapshot;
}

absl::Status QemuMicrovm::GrowDisk(const RunningVm& record, uint64_t bytes) {
  const Deadline deadline(kControlTimeout);
  ASSIGN_OR_RETURN(QmpClient qmp, QmpClient::Connect(record.control_path, deadline));
  const std::string size = absl::StrCat("{\"device\":\"rw\",\"size\":", bytes, "}");
  return Annotate(qmp.Execute("block_resize", size, deadline).status(), "growing the VM's disk");
}

absl::Status AwaitRestored(const std::string& control_path, const Deadline& deadline) {
  ASSIGN_OR_RETURN(QmpClient qmp, QmpClient::Connect(control_path, deadline));
  while (true) {
    ASSIGN_OR_RETURN(const std::string status, qmp.QueryStatus(deadline));
    if (status == "running") return absl::OkStatus();
    // It waits for the snapshot's state; the event of its going on is the next thing told.
    if (status != "inmigrate" && status != "prelaunch" && status != "paused") {
      return absl::UnavailableError(absl::StrCat("the restored VM is ", status));
    }
    RETURN_IF_ERROR(qmp.NextEvent(deadline).status());
  }
}

}  // namespace bunker::agent
