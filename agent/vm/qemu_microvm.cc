#include "agent/vm/qemu_microvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/vm/accel_probe.h"
#include "agent/vm/guest_memory.h"
#include "agent/vm/jail.h"
#include "agent/vm/memory_file.h"
#include "agent/vm/qmp_client.h"
#include "agent/vm/spec_check.h"
#include "agent/vm/trial_boot.h"
#include "agent/vm/tsc.h"
#include "agent/vm/unix_socket.h"
#include "agent/vm/vm_args.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kKillTimeout = absl::Seconds(5);
constexpr absl::Duration kConnectTimeout = absl::Seconds(2);
constexpr size_t kMaxDetailBytes = 1024;
// Threads of one VM: its vCPUs, the main loop, and up to 64 for disk requests.
constexpr rlim_t kThreadsBesideVcpus = 80;
constexpr rlim_t kMaxOpenFiles = 256;

std::string ChannelPath(const std::string& folder) { return folder + "/channel.sock"; }
std::string ControlPath(const std::string& folder) { return folder + "/control.sock"; }
std::string StagingPath(const std::string& folder) { return folder + "/jail"; }

// "vendor_id" of the first CPU.
std::string CpuVendor() {
  absl::StatusOr<std::string> text = ReadFile("/proc/cpuinfo", 4 * 1024 * 1024);
  if (!text.ok()) return "";
  for (const char* vendor : {"AuthenticAMD", "GenuineIntel"}) {
    if (text->substr(0, 512).find(vendor) != std::string::npos) return vendor;
  }
  return "";
}

// What a guest or a VMM it took over may have written, made fit for one line of a log.
std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(text.size() - std::min(text.size(), kMaxDetailBytes))) {
    if (c == '\n' || c == '\r') {
      if (!out.empty() && out.back() != ' ') out.push_back(' ');
    } else {
      out.push_back(c >= 0x20 && c < 0x7f ? c : '?');
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

// What is in the pipe now; never waits.
std::string DrainLastWords(int fd) {
  std::string text;
  std::array<char, 4096> chunk;
  while (fd >= 0 && text.size() < 256 * 1024) {
    const ssize_t count = read(fd, chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    text.append(chunk.data(), static_cast<size_t>(count));
  }
  return Printable(text);
}

// The system folders that a dynamically linked QEMU needs, and no others of the host.
void AddSystemFolders(const std::string& binary, JailSpec* jail) {
  jail->mounts.push_back({.source = binary, .target = binary, .programs = true});
  for (const char* folder : {"/usr/lib", "/usr/lib64"}) {
    if (fs::is_directory(folder)) {
      jail->mounts.push_back({.source = folder, .target = folder, .programs = true});
    }
  }
  for (const char* folder : {"/lib", "/lib64"}) {
    std::error_code error;
    if (fs::is_symlink(folder, error)) {
      jail->symlinks.emplace_back(folder, fs::read_symlink(folder, error).string());
    } else if (fs::is_directory(folder, error)) {
      jail->mounts.push_back({.source = folder, .target = folder, .programs = true});
    }
  }
  const std::string firmware = fs::path(binary).parent_path().parent_path() / "share/qemu";
  if (fs::is_directory(firmware)) {
    jail->mounts.push_back({.source = firmware, .target = firmware});
  }
}

JailSpec MakeJail(const VmSpec& spec, std::vector<std::string> argv) {
  std::error_code error;
  const uint64_t rw_disk_bytes = fs::file_size(spec.rw_disk, error);
  JailSpec jail;
  jail.staging = StagingPath(spec.folder);
  AddSystemFolders(argv[0], &jail);
  jail.argv = std::move(argv);
  // QEMU tries on it whether the kernel has locks that belong to an open file. Without it, it
  // falls back to locks that its next close() drops: two writers of one disk would go unnoticed.
  jail.mounts.push_back({.source = "/dev/null", .target = "/dev/null", .writable = true,
                         .device = true});
  jail.mounts.push_back({.source = spec.base_disk, .target = kJailBaseDisk});
  jail.mounts.push_back({.source = spec.rw_disk, .target = kJailRwDisk, .writable = true});
  jail.mounts.push_back({.source = spec.kernel, .target = kJailKernel});
  jail.mounts.push_back({.source = spec.initrd, .target = kJailInitrd});
  jail.kvm_device = spec.accelerator == Accelerator::kHardware;
  jail.background = spec.background;
  jail.no_huge_pages = spec.accelerator == Accelerator::kSoftware;
  jail.uid = spec.uid;
  jail.limits = {{RLIMIT_CORE, 0},
                 {RLIMIT_FSIZE, rw_disk_bytes},
                 {RLIMIT_NOFILE, kMaxOpenFiles},
                 {RLIMIT_NPROC, kThreadsBesideVcpus + spec.vcpus},
                 {RLIMIT_MSGQUEUE, 0}};
  return jail;
}

// Gives the jail kMemoryFd and kDevicesFd, where it gets them. Keep what is returned until it runs.
absl::StatusOr<UniqueFd> PassMemory(const QemuArgs& args, const VmSnapshot* snapshot,
                                    JailSpec* jail) {
  UniqueFd opened;
  if (args.memory == GuestMemory::kAnonymous) return opened;
  jail->fds_folder = kJailFds;
  if (args.memory == GuestMemory::kFile) {
    ASSIGN_OR_RETURN(opened, MakeMemoryFile(kGuestMemoryName));
    if (ftruncate(opened.get(), static_cast<off_t>(args.memory_mb) << 20) != 0) {
      return ErrnoError(errno, "size the guest's memory");
    }
    jail->fds.push_back(opened.get());
  } else {
    // The devices' file opened anew: an offset of its own.
    ASSIGN_OR_RETURN(opened, ReopenFile(snapshot->devices.get(), O_RDONLY));
    jail->fds.insert(jail->fds.end(), {snapshot->memory.get(), opened.get()});
  }
  return opened;
}

// OK once QEMU answers, and the guest of a snapshot runs. The cancel token kills it, which ends the
// wait.
absl::Status AwaitMonitor(const VmHandle& vm, bool restored, const Deadline& deadline,
                          CancelToken& cancel) {
  cancel.SetCallback([pidfd = vm.exit_fd()] {
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
  });
  const std::string& path = vm.record().control_path;
  const absl::Status answered = restored ? AwaitRestored(path, deadline)
                                         : QmpClient::Connect(path, deadline).status();
  cancel.ClearCallback();
  return answered.ok() ? cancel.Check() : answered;
}

// Runs `command` and looks whether the guest's CPUs then are in `state`: the VMM's word "OK" alone
// says nothing of a guest that had ended or failed before.
absl::Status SwitchCpus(const RunningVm& record, const char* command, const char* state) {
  const Deadline deadline(kConnectTimeout);
  ASSIGN_OR_RETURN(QmpClient qmp, QmpClient::Connect(record.control_path, deadline));
  RETURN_IF_ERROR(qmp.Execute(command, "", deadline).status());
  ASSIGN_OR_RETURN(const std::string now, qmp.QueryStatus(deadline));
  if (now == state) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the VM is ", now, ", not ", state));
}

// Undoes what Start made in the folder unless told that all went well.
class FolderGuard {
 public:
  FolderGuard(Vmm* vmm, std::string folder) : vmm_(vmm), folder_(std::move(folder)) {}
  ~FolderGuard() {
    if (vmm_ == nullptr) return;
    const absl::Status cleaned = vmm_->Clean(folder_);
    if (!cleaned.ok()) Log(Severity::kWarning, "vm.clean_failed", {{"error", cleaned.ToString()}});
  }
  void Dismiss() { vmm_ = nullptr; }

 private:
  Vmm* vmm_;
  std::string folder_;
};

// Back to this process's own priority. Each thread has one.
void EndBackground(pid_t pid) {
  const int own = getpriority(PRIO_PROCESS, 0);
  std::error_code error;
  for (const fs::directory_entry& thread :
       fs::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    id_t id = 0;
    if (absl::SimpleAtoi(thread.path().filename().string(), &id))
      setpriority(PRIO_PROCESS, id, own);
  }
}

}  // namespace

const char* AcceleratorName(Accelerator accelerator) {
  return accelerator == Accelerator::kHardware ? "kvm" : "tcg";
}

QemuMicrovm::QemuMicrovm(QemuOptions options) : options_(std::move(options)) {}

absl::StatusOr<std::string> QemuMicrovm::Binary() const {
  std::error_code error;
  const std::string binary = fs::canonical(options_.binary, error);
  if (!error) return binary;
  return absl::NotFoundError(absl::StrCat(options_.binary, ": ", error.message(),
                                          ": install qemu-system-x86 or set [vm] qemu"));
}

QemuArgs QemuMicrovm::ArgsFor(const VmSpec& spec, const std::string& binary) const {
  QemuArgs args;
  args.binary = binary;
  args.name = fs::path(spec.folder).filename();
  args.vcpus = spec.vcpus;
  args.memory_mb = spec.memory_mb;
  args.accelerator = spec.accelerator;
  args.kvm_cpu_model =
      options_.kvm_cpu_model.empty() ? PinnedCpuModel(CpuVendor()) : options_.kvm_cpu_model;
  args.tsc_khz = HostTscKhz();
  args.kernel_args = spec.kernel_args;
  args.console_kib = spec.console_kib;
  if (spec.snapshots) args.memory = GuestMemory::kFile;
  args.nic_mac = spec.nic_mac;
  for (const VmCard& card : spec.more_cards) args.more_macs.push_back(card.mac);
  args.disk_bytes_per_s = spec.disk_bytes_per_s;
  args.disk_iops = spec.disk_iops;
  return args;
}

absl::StatusOr<VmHandle> QemuMicrovm::Start(const VmSpec& spec, const Spawned& spawned,
                                            CancelToken& cancel) {
  return Launch(spec, nullptr, spawned, cancel);
}

absl::StatusOr<VmHandle> QemuMicrovm::Restore(const VmSpec& spec, const VmSnapshot& snapshot,
                                              const Spawned& spawned, CancelToken& cancel) {
  RETURN_IF_ERROR(CheckBasis(spec, snapshot));
  return Launch(spec, &snapshot, spawned, cancel);
}

absl::StatusOr<VmHandle> QemuMicrovm::Launch(const VmSpec& spec, const VmSnapshot* snapshot,
                                             const Spawned& spawned, CancelToken& cancel) {
  const Deadline deadline(spec.start_timeout);
  RETURN_IF_ERROR(cancel.Check());
  RETURN_IF_ERROR(CheckVmSpec(spec));
  ASSIGN_OR_RETURN(const std::string binary, Binary());

  // A socket that is there already may belong to a VM that lives: it isn't ours to remove.
  ASSIGN_OR_RETURN(UniqueFd channel, ListenUnix(ChannelPath(spec.folder)));
  FolderGuard guard(this, spec.folder);
  ASSIGN_OR_RETURN(UniqueFd control, ListenUnix(ControlPath(spec.folder)));
  if (mkdir(StagingPath(spec.folder).c_str(), 0700) != 0)
    return ErrnoError(errno, absl::StrCat("mkdir ", StagingPath(spec.folder)));
  // Non-blocking: a VMM that talks more than anybody reads loses words, it does not stand still.
  int last_words[2];
  if (pipe2(last_words, O_CLOEXEC | O_NONBLOCK) != 0) return ErrnoError(errno, "pipe2");
  UniqueFd words_read(last_words[0]), words_write(last_words[1]);
  QemuArgs args = ArgsFor(spec, binary);
  if (snapshot != nullptr) args.memory = GuestMemory::kRestored;
  JailSpec jail = MakeJail(spec, BuildQemuArgs(args));
  jail.stderr_fd = words_write.get();
  jail.fds = {channel.get(), control.get()};  // kChannelFd, kControlFd
  ASSIGN_OR_RETURN(const UniqueFd memory, PassMemory(args, snapshot, &jail));
  if (spec.tap_fd >= 0) jail.fds.push_back(spec.tap_fd);  // TapFdOf(args)
  for (const VmCard& card : spec.more_cards) jail.fds.push_back(card.tap_fd);
  ASSIGN_OR_RETURN(JailedProcess jailed, StartJailed(jail));
  words_write.reset();

  RunningVm record{.driver = Name(),
                   .process = jailed.identity(),
                   .uid = spec.uid,
                   .folder = spec.folder,
                   .channel_path = ChannelPath(spec.folder),
                   .control_path = ControlPath(spec.folder),
                   .accelerator = spec.accelerator};
  if (absl::Status journalled = spawned(record); !journalled.ok()) {
    jailed.Abandon();
    return Annotate(journalled, "the VM was not started");
  }
  RETURN_IF_ERROR(jailed.Release(deadline.Remaining()));
  // Only QEMU listens from here on: its end is then the end of every connection.
  channel.reset();
  control.reset();

  VmHandle vm(std::move(record), jailed.TakeProcess(), std::move(words_read));
  const absl::Status answered = AwaitMonitor(vm, snapshot != nullptr, deadline, cancel);
  if (!answered.ok()) {
    absl::StatusOr<VmExit> ended = Kill(vm);
    RETURN_IF_ERROR(cancel.Check());
    if (!ended.ok()) return ended.status();
    return Annotate(answered, absl::StrCat("QEMU did not start (", DescribeExit(ended->process),
                                           "): ", ended->detail));
  }
  guard.Dismiss();
  const std::string words = DrainLastWords(vm.last_words_fd());
  if (!words.empty()) {
    Log(Severity::kWarning, "vm.stderr", {{"folder", spec.folder}, {"text", words}});
  }
  return vm;
}

absl::StatusOr<VmHandle> QemuMicrovm::Adopt(const RunningVm& record) {
  if (record.driver != Name()) {
    return absl::InvalidArgumentError(absl::StrCat("a VM of driver '", record.driver,
                                                   "' can't be adopted by ", Name()));
  }
  ASSIGN_OR_RETURN(ProcessHandle process, ProcessHandle::Open(record.process));
  return VmHandle(record, std::move(process), UniqueFd());
}

absl::StatusOr<UniqueFd> QemuMicrovm::OpenChannel(const RunningVm& record) {
  return ConnectUnix(record.channel_path, kConnectTimeout);
}

absl::StatusOr<VmExit> QemuMicrovm::Stop(VmHandle& vm, absl::Duration grace) {
  if (vm.process().HasEnded()) return Reap(vm);
  const Deadline deadline(grace);
  absl::Status asked;
  {
    absl::StatusOr<QmpClient> qmp = QmpClient::Connect(vm.record().control_path, deadline);
    asked = qmp.ok() ? qmp->Quit(deadline) : qmp.status();
  }
  if (asked.ok() && vm.process().Wait(deadline.Remaining()).ok()) return Reap(vm);
  Log(Severity::kWarning, "vm.kill",
      {{"pid", vm.process().pid()}, {"why", asked.ok() ? "still there" : asked.ToString()}});
  return Kill(vm);
}

absl::StatusOr<VmExit> QemuMicrovm::Kill(VmHandle& vm) {
  ASSIGN_OR_RETURN(const ProcessExit exit, vm.process().Kill(kKillTimeout));
  return VmExit{exit, DrainLastWords(vm.last_words_fd())};
}

absl::Status QemuMicrovm::Pause(const RunningVm& record) {
  return Annotate(SwitchCpus(record, "stop", "paused"), "pausing the VM");
}

absl::Status QemuMicrovm::Resume(const RunningVm& record) {
  EndBackground(record.process.pid);
  return Annotate(SwitchCpus(record, "cont", "running"), "resuming the VM");
}

absl::StatusOr<VmExit> QemuMicrovm::Reap(VmHandle& vm) {
  ASSIGN_OR_RETURN(const ProcessExit exit, vm.process().Wait(absl::ZeroDuration()));
  return VmExit{exit, DrainLastWords(vm.last_words_fd())};
}

absl::StatusOr<std::string> QemuMicrovm::ReadConsole(const RunningVm& record) {
  const Deadline deadline(kConnectTimeout);
  ASSIGN_OR_RETURN(QmpClient qmp, QmpClient::Connect(record.control_path, deadline));
  // base64: a guest's bytes need not be text.
  ASSIGN_OR_RETURN(
      const std::string answer,
      qmp.Execute("ringbuf-read", R"({"device":"console","size":1048576,"format":"base64"})",
                  deadline));
  const nlohmann::json encoded = nlohmann::json::parse(answer, nullptr, false);
  std::string bytes;
  if (!encoded.is_string() || !absl::Base64Unescape(encoded.get<std::string>(), &bytes)) {
    return absl::UnavailableError("the VMM's console is not base64");
  }
  return bytes;
}

absl::Status QemuMicrovm::Clean(const std::string& folder) {
  for (const std::string& socket : {ChannelPath(folder), ControlPath(folder)}) {
    if (unlink(socket.c_str()) != 0 && errno != ENOENT) {
      return ErrnoError(errno, absl::StrCat("remove ", socket));
    }
  }
  // Always empty as the host sees it: the jail's root lives in a namespace that died with the VM.
  if (rmdir(StagingPath(folder).c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, absl::StrCat("remove ", StagingPath(folder)));
  }
  return absl::OkStatus();
}

absl::StatusOr<AcceleratorVerdict> QemuMicrovm::Probe(CancelToken& cancel) {
  const absl::Duration start = MonotonicTime();
  AcceleratorVerdict verdict;
  if (options_.accelerator == "tcg") {
    verdict.reason = "the agent's config says accelerator = \"tcg\"";
    return verdict;
  }
  KvmVerdict kvm = ProbeKvm("/dev/kvm", cancel);
  RETURN_IF_ERROR(cancel.Check());
  if (kvm.works) {
    const absl::Status booted = RunTrialBoot(*this,
                                             {.kernel = options_.kernel,
                                              .initrd = options_.initrd,
                                              .scratch_dir = options_.scratch_dir,
                                              .uid = options_.probe_uid,
                                              .accelerator = Accelerator::kHardware},
                                             cancel);
    RETURN_IF_ERROR(cancel.Check());
    if (!booted.ok()) {
      kvm = {false, "boot the guest kernel under QEMU", std::string(booted.message())};
    }
  }
  verdict.took = MonotonicTime() - start;
  if (kvm.works) {
    verdict.accelerator = Accelerator::kHardware;
    return verdict;
  }
  verdict.reason = absl::StrCat("KVM failed at the step '", kvm.step, "': ", kvm.detail);
  if (options_.accelerator == "kvm") {
    return absl::FailedPreconditionError(absl::StrCat(
        verdict.reason, ". The agent's config says accelerator = \"kvm\": use \"auto\" to run "
        "guests without it, slower, or a host with a working KVM"));
  }
  return verdict;
}

}  // namespace bunker::agent
