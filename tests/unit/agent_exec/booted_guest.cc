#include "tests/unit/agent_exec/booted_guest.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <vector>

#include "agent/vm/tsc.h"
#include "common/base/log.h"
#include "common/base/reason.h"

extern char** environ;

namespace bunker::agent {
namespace {

constexpr int kChannelFd = 3;

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  BUNKER_CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

void MakeDisk(const std::string& path, bool blank) {
  const std::string command = "truncate -s 512M '" + path + "'" +
                              (blank ? ""
                                     : " && mkfs.ext4 -q -F -b 4096 -m 0 "
                                       "-E lazy_itable_init=1,lazy_journal_init=1,nodiscard '" +
                                           path + "'");
  BUNKER_CHECK(std::system(command.c_str()) == 0);
}

pid_t Spawn(const std::vector<std::string>& args, int channel_fd) {
  std::vector<char*> argv;
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, channel_fd, kChannelFd);
  pid_t pid = -1;
  BUNKER_CHECK(posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

}  // namespace

BootedGuest::BootedGuest(const Images& images)
    : socket_path_(images.folder + "/channel"), rw_disk_(images.folder + "/rw.ext4") {
  MakeDisk(rw_disk_, images.blank_rw_disk);
  const UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = AddressOf(socket_path_);
  BUNKER_CHECK(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
               0);
  BUNKER_CHECK(listen(listener.get(), 4) == 0);
  const UniqueFd high(fcntl(listener.get(), F_DUPFD_CLOEXEC, 100));
  pid_ = Spawn(
      {"qemu-system-x86_64",
       "-M",
       "microvm,acpi=on,isa-serial=off",
       "-accel",
       "tcg,tb-size=32",
       "-cpu",
       std::getenv("BUNKER_TEST_CPU") ? std::getenv("BUNKER_TEST_CPU") : "max",
       "-m",
       std::to_string(images.memory_mb) + "M",
       "-smp",
       "1",
       "-nodefaults",
       "-no-user-config",
       "-nic",
       "none",
       "-display",
       "none",
       "-no-reboot",
       "-global",
       "virtio-mmio.force-legacy=false",
       "-kernel",
       images.kernel,
       "-initrd",
       images.initrd,
       "-append",
       "quiet loglevel=0 rdinit=/init panic=-1 tsc_early_khz=" + std::to_string(HostTscKhz()) +
           " tsc=reliable no_timer_check noreplace-smp mitigations=off",
       "-drive",
       "id=d0,if=none,format=raw,read-only=on,file=" + images.base,
       "-device",
       "virtio-blk-device,drive=d0,serial=base",
       "-drive",
       "id=d1,if=none,format=raw,discard=unmap,detect-zeroes=unmap,file=" + rw_disk_,
       "-device",
       "virtio-blk-device,drive=d1,serial=rw",
       "-device",
       "virtio-serial-device,id=vs0,max_ports=2",
       "-chardev",
       "socket,id=ag,fd=3,server=on,wait=off",
       "-device",
       "virtserialport,bus=vs0.0,nr=1,chardev=ag,name=agent"},
      high.get());
}

BootedGuest::~BootedGuest() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

absl::StatusOr<UniqueFd> BootedGuest::Connect() const {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = AddressOf(socket_path_);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoError(errno, "connect to the guest");
  }
  return fd;
}

GuestChannel::Options BootedGuest::ChannelOptions() const {
  GuestChannel::Options options;
  options.name = "test";
  options.connect = [this] { return Connect(); };
  return options;
}

int BootedGuest::WaitForEnd(absl::Duration timeout) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  pollfd wait{pidfd.get(), POLLIN, 0};
  if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) != 1) return -1;
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

RunOutcome RunInGuest(GuestChannel& channel, const ExecSpec& spec, std::string_view stdin_data) {
  struct State {
    RunOutcome outcome;
    std::promise<void> done;
  };
  const auto state = std::make_shared<State>();
  ExecCallbacks callbacks;
  callbacks.on_output = [state](bool is_stderr, std::string_view data) {
    (is_stderr ? state->outcome.err : state->outcome.out).append(data);
  };
  callbacks.on_exit = [state](const ExecResult& result) {
    state->outcome.result = result;
    state->done.set_value();
  };
  callbacks.on_error = [state](const absl::Status& status) {
    state->outcome.status = status;
    state->done.set_value();
  };
  auto handle = channel.StartExec(spec, std::move(callbacks));
  if (!handle.ok()) return {handle.status(), {}, {}, {}};
  const absl::Status written = (*handle)->WriteStdin(stdin_data, absl::Seconds(60));
  if (!written.ok()) return {written, {}, {}, {}};
  (*handle)->CloseStdin();
  if (state->done.get_future().wait_for(std::chrono::seconds(120)) != std::future_status::ready) {
    return {absl::DeadlineExceededError("no end after 120 s"), {}, {}, {}};
  }
  return state->outcome;
}

}  // namespace bunker::agent
