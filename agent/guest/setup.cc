#include "agent/guest/setup.h"

#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <utility>

#include "agent/guest/command.h"
#include "agent/guest/fd.h"
#include "agent/guest/network.h"
#include "agent/guest/small_file.h"
#include "agent/guest/users.h"

namespace bunker::guest {
namespace {

constexpr size_t kMaxEntropyBytes = 512;
constexpr size_t kMaxUserFileBytes = 4 << 20;

Error SetClock(uint64_t realtime_ns) {
  timespec now{};
  now.tv_sec = static_cast<time_t>(realtime_ns / 1'000'000'000);
  now.tv_nsec = static_cast<long>(realtime_ns % 1'000'000'000);
  if (clock_settime(CLOCK_REALTIME, &now) != 0) return ErrnoError("set the clock");
  return {};
}

Error AddEntropy(const std::string& bytes) {
  if (bytes.size() > kMaxEntropyBytes) return {"add entropy: too much of it"};
  struct {
    int entropy_bits;
    int size;
    char bytes[kMaxEntropyBytes];
  } pool{};
  pool.entropy_bits = static_cast<int>(bytes.size() * 8);
  pool.size = static_cast<int>(bytes.size());
  std::memcpy(pool.bytes, bytes.data(), bytes.size());
  const Fd random(open("/dev/urandom", O_RDWR | O_CLOEXEC));
  if (!random.valid()) return ErrnoError("open /dev/urandom");
  if (ioctl(random.get(), RNDADDENTROPY, &pool) != 0) return ErrnoError("add entropy");
  // Else the generator would go on with what it was seeded with before, for up to a minute.
  if (ioctl(random.get(), RNDRESEEDCRNG) != 0) return ErrnoError("reseed");
  return {};
}

Error SetHostname(const std::string& name) {
  return sethostname(name.data(), name.size()) == 0 ? Error{} : ErrnoError("set the host name");
}

Error WriteHostname(const std::string& name) {
  if (Error error = EnsureEtcFile("/etc", "hostname", name + "\n"); !error.ok()) return error;
  return EnsureEtcFile(
      "/etc", "hosts",
      "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.1.1\t" + name + "\n");
}

// Over the one that a template has, which is quicker than to make the file again.
bool OverwriteMachineId(const char* path, const std::string& line) {
  const Fd file(open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  return file.valid() && fstat(file.get(), &info) == 0 && S_ISREG(info.st_mode) &&
         info.st_nlink == 1 && info.st_size == static_cast<off_t>(line.size()) &&
         pwrite(file.get(), line.data(), line.size(), 0) == static_cast<ssize_t>(line.size());
}

// An image's own would be that of all its bunkers. A link (to where D-Bus keeps its) goes too.
Error SetMachineId(const std::string& id) {
  constexpr char kPath[] = "/etc/machine-id";
  if (OverwriteMachineId(kPath, id + "\n")) return {};
  if (unlink(kPath) != 0 && errno != ENOENT) return ErrnoError("replace /etc/machine-id");
  return WriteSmallFile(AT_FDCWD, kPath, O_CREAT | O_EXCL | O_NOFOLLOW, 0444, id + "\n");
}

// Appends `line` to a file of /etc, after a newline where its last line lacks one.
Error AppendLine(const std::string& path, const std::string& content, const std::string& line) {
  const bool unfinished = !content.empty() && content.back() != '\n';
  return WriteSmallFile(AT_FDCWD, path.c_str(), O_CREAT | O_APPEND, 0644,
                        (unfinished ? "\n" : "") + line + "\n");
}

std::string ReadOrEmpty(const std::string& path) {
  std::string content;
  if (!ReadSmallFile(AT_FDCWD, path.c_str(), kMaxUserFileBytes, &content).ok()) content.clear();
  return content;
}

std::string FreeName(const std::function<bool(const std::string&)>& taken) {
  std::string name = "bunker";
  for (int suffix = 1000; taken(name) && suffix < 2000; ++suffix) {
    name = "bunker" + std::to_string(suffix);
  }
  return name;
}

}  // namespace

std::vector<std::string> ApplyConfig(const v1::GuestConfig& config) {
  std::vector<std::string> problems;
  const auto note = [&](const Error& error) {
    if (!error.ok()) problems.push_back(error.message);
  };
  if (!config.entropy().empty()) note(AddEntropy(config.entropy()));
  if (config.realtime_ns() != 0) note(SetClock(config.realtime_ns()));
  if (!config.machine_id().empty()) note(SetMachineId(config.machine_id()));
  if (!config.hostname().empty()) note(SetHostname(config.hostname()));
  if (config.has_network()) note(BringNetworkUp(config.network()));
  for (std::string& problem : BringInterfacesUp(config.interfaces()))
    problems.push_back(std::move(problem));
  return problems;
}

void WriteNames(const v1::GuestConfig& config) {
  const auto note = [](const Error& error) {
    if (error.ok()) return;
    [[maybe_unused]] const Error log =
        WriteSmallFile(AT_FDCWD, "/dev/kmsg", 0, 0, "bunker-guest: " + error.message + "\n");
  };
  if (!config.hostname().empty()) note(WriteHostname(config.hostname()));
  if (!config.network().nameserver().empty()) note(WriteResolver(config.network().nameserver()));
}

Error BringLoopbackUp() {
  const Fd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control.valid()) return ErrnoError("open a socket");
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(control.get(), SIOCSIFFLAGS, &request) != 0) return ErrnoError("bring lo up");
  return {};
}

Error EnsureEtcFile(const std::string& etc_folder, const std::string& name,
                    const std::string& content) {
  const std::string path = etc_folder + "/" + name;
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0 && (!S_ISREG(info.st_mode) || info.st_size > 0)) return {};
  // Not truncated, which it does not need: ext4 writes what was truncated to the disk when it is
  // closed.
  return WriteSmallFile(AT_FDCWD, path.c_str(), O_CREAT | O_NOFOLLOW, 0644, content);
}

Error EnsureUser1000(const std::string& etc_folder, const std::string& home_parent) {
  const std::string passwd = ReadOrEmpty(etc_folder + "/passwd");
  const std::string group = ReadOrEmpty(etc_folder + "/group");
  const UserDb users = UserDb::Parse(passwd, group);
  const std::string id = std::to_string(kDefaultUid);
  if (users.GroupByGid(kDefaultUid) == nullptr) {
    const std::string name =
        FreeName([&](const std::string& at) { return users.GroupByName(at) != nullptr; });
    if (Error error = AppendLine(etc_folder + "/group", group, name + ":x:" + id + ":");
        !error.ok()) {
      return error;
    }
  }
  if (users.ByUid(kDefaultUid) != nullptr) return {};
  const std::string name =
      FreeName([&](const std::string& at) { return users.ByName(at) != nullptr; });
  const std::string home = home_parent + "/" + name;
  if (Error error = AppendLine(etc_folder + "/passwd", passwd,
                               name + ":x:" + id + ":" + id + "::" + home + ":/bin/sh");
      !error.ok()) {
    return error;
  }
  mkdir(home_parent.c_str(), 0755);
  if (mkdir(home.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoError("make " + home);
  if (chown(home.c_str(), kDefaultUid, kDefaultUid) != 0) return ErrnoError("chown " + home);
  return {};
}

}  // namespace bunker::guest
