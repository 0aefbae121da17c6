#include "agent/guest/boot.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "agent/guest/devices.h"
#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

constexpr int kFirst = -20;  // of nice values

constexpr char kModuleFolder[] = "/modules";
constexpr int kDeviceTimeoutMillis = 10'000;

struct MountRow {
  const char* source;
  const char* target;
  const char* type;
  unsigned long flags;
  const char* options;
};

constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV | MS_NOEXEC;

constexpr MountRow kEarlyMounts[] = {
    {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"},
    {"proc", "/proc", "proc", kSafe, nullptr},
    {"sysfs", "/sys", "sysfs", kSafe, nullptr},
};

// The private disk first: its upper and work folders are made before the overlay needs them.
// Nothing in the image may redirect or hide other folders: what an image says about overlays in
// its extended attributes is not followed.
constexpr char kOverlayOptions[] =
    "lowerdir=/m/base,upperdir=/m/rw/upper,workdir=/m/rw/work,"
    "redirect_dir=nofollow,metacopy=off,index=off,xino=off";

constexpr MountRow kRootMounts[] = {
    {"proc", "/proc", "proc", kSafe, nullptr},
    {"sysfs", "/sys", "sysfs", kSafe, nullptr},
    {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"},
    {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
     "newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"mqueue", "/dev/mqueue", "mqueue", kSafe, nullptr},
    {"tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=25%"},
    // Else every command's entry into its group waits for all CPUs to have seen it: 12 ms.
    {"cgroup2", "/sys/fs/cgroup", "cgroup2", kSafe, "favordynmods"},
};

// Missing ones are the kernel's business: these make life easier, nothing depends on them.
struct Setting {
  const char* path;
  const char* value;
};
constexpr Setting kSysctls[] = {
    {"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
    {"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
    {"/proc/sys/kernel/printk", "1 4 1 1"},
};

struct Link {
  const char* target;
  const char* path;
};
constexpr Link kDeviceLinks[] = {
    {"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
    {"pts/ptmx", "/dev/ptmx"},
};

// A real folder at `path`: an image may have anything there, a link to elsewhere included.
Error MakeMountPoint(const char* path, mode_t mode) {
  struct stat info {};
  if (lstat(path, &info) == 0) {
    if (S_ISDIR(info.st_mode)) return {};
    if (unlink(path) != 0) return ErrnoError(std::string("replace ") + path);
  }
  if (mkdir(path, mode) != 0) return ErrnoError(std::string("make ") + path);
  return {};
}

Error Mount(const MountRow& row) {
  if (mount(row.source, row.target, row.type, row.flags, row.options) != 0) {
    return ErrnoError(std::string("mount ") + row.type + " on " + row.target);
  }
  return {};
}

Error LoadModule(const std::string& path) {
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoError("open module " + path);
  if (syscall(SYS_finit_module, file.get(), "", 0) != 0 && errno != EEXIST) {
    return ErrnoError("load module " + path);
  }
  return {};
}

// "07-failover.ko": they take a while to load, and most guests have no card.
bool IsForNetworkCard(const std::string& module) {
  return module.find("failover") != std::string::npos ||
         module.find("virtio_net") != std::string::npos;
}

bool HasNetworkCard() {
  return !FindBySysfs("/sys/bus/virtio/devices", "device", "0x0001").empty();
}

// The overlay's root is seen with the upper folder's owner and mode: give it the image's.
Error MakeUpper() {
  if (mkdir("/m/rw/work", 0700) != 0 && errno != EEXIST) return ErrnoError("make work folder");
  if (mkdir("/m/rw/upper", 0755) != 0) {
    return errno == EEXIST ? Error{} : ErrnoError("make upper folder");
  }
  struct stat info {};
  if (stat("/m/base", &info) != 0) return ErrnoError("stat base");
  if (chown("/m/rw/upper", info.st_uid, info.st_gid) != 0 ||
      chmod("/m/rw/upper", info.st_mode & 07777) != 0) {
    return ErrnoError("set upper's owner and mode");
  }
  return {};
}

}  // namespace

Error BootEarly() {
  umask(0);
  for (const MountRow& row : kEarlyMounts) {
    mkdir(row.target, 0755);
    if (Error error = Mount(row); !error.ok()) return error;
  }
  const int null = open("/dev/null", O_RDWR);
  if (null < 0) return ErrnoError("open /dev/null");
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  if (null > 2) close(null);
  umask(022);
  return {};
}

Error LoadModules() {
  DIR* folder = opendir(kModuleFolder);
  if (folder == nullptr) return ErrnoError(kModuleFolder);
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  closedir(folder);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = std::string(kModuleFolder) + "/" + name;
    if (!IsForNetworkCard(name) || HasNetworkCard()) {
      if (Error error = LoadModule(path); !error.ok()) return error;
    }
    unlink(path.c_str());  // its memory is the guest's
  }
  return {};
}

Error OpenAgentPort(Fd* port) {
  std::string path;
  if (Error error = WaitForPort("agent", kDeviceTimeoutMillis, &path); !error.ok()) return error;
  *port = Fd(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!port->valid()) return ErrnoError("open " + path);
  return {};
}

Error EnterRoot(Fd* rw_root) {
  std::string base, rw;
  if (Error error = WaitForDisk("base", kDeviceTimeoutMillis, &base); !error.ok()) return error;
  if (Error error = WaitForDisk("rw", kDeviceTimeoutMillis, &rw); !error.ok()) return error;
  for (const char* folder : {"/m", "/m/base", "/m/rw", "/m/root"}) mkdir(folder, 0755);
  if (Error error = Mount({base.c_str(), "/m/base", "ext4", MS_RDONLY, "noload"}); !error.ok()) {
    return error;
  }
  if (Error error = Mount({rw.c_str(), "/m/rw", "ext4", MS_NOATIME, "discard"}); !error.ok()) {
    return error;
  }
  if (Error error = MakeUpper(); !error.ok()) return error;
  *rw_root = Fd(open("/m/rw", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (Error error = Mount({"overlay", "/m/root", "overlay", 0, kOverlayOptions}); !error.ok()) {
    return error;
  }
  for (const char* old : {"/proc", "/sys", "/dev"}) umount2(old, MNT_DETACH);
  // An initrd's root can't be pivoted away; moving over it and chroot is the documented way.
  if (chdir("/m/root") != 0 || mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 ||
      chroot(".") != 0 || chdir("/") != 0) {
    return ErrnoError("make the overlay the root");
  }
  return {};
}

Error PrepareRoot(Fd* cgroup_root) {
  for (const MountRow& row : kRootMounts) {
    if (Error error = MakeMountPoint(row.target, 0755); !error.ok()) {
      // sysfs makes its own mount points; all others are ours to make.
      if (std::string(row.type) != "cgroup2") return error;
    }
    if (Error error = Mount(row); !error.ok()) {
      if (std::string(row.type) != "mqueue") return error;
    }
  }
  struct stat info {};
  if (lstat("/tmp", &info) != 0 && mkdir("/tmp", 01777) == 0) chmod("/tmp", 01777);
  for (const Link& link : kDeviceLinks) {
    unlink(link.path);
    if (symlink(link.target, link.path) != 0) return ErrnoError(link.path);
  }
  for (const Setting& setting : kSysctls) {
    [[maybe_unused]] const Error error =
        WriteSmallFile(AT_FDCWD, setting.path, 0, 0, setting.value);
  }
  *cgroup_root = Fd(open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup_root->valid()) return ErrnoError("open /sys/fs/cgroup");
  return {};
}

Error ProtectPid1() {
  // Among hundreds of runnable processes of a fork bomb this one still has its turn. Best effort.
  setpriority(PRIO_PROCESS, 0, kFirst);
  return WriteSmallFile(AT_FDCWD, "/proc/self/oom_score_adj", 0, 0, "-1000");
}

}  // namespace bunker::guest
