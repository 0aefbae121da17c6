// PID 1 of the guest that the VM driver's tests boot: loads the modules, opens the channel, says
// READY and obeys one-word lines. The tests put it over /init of the real initrd.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

// The file `module`.ko, with or without a number before it ("10-virtio.ko").
void Find(const std::string& folder, const std::string& module, std::string* found) {
  DIR* listing = opendir(folder.c_str());
  if (listing == nullptr) return;
  while (const dirent* entry = readdir(listing)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (entry->d_type == DT_DIR) Find(folder + "/" + name, module, found);
    const size_t start = name.find_first_not_of("0123456789-");
    if (start != std::string::npos && name.substr(start) == module + ".ko") {
      *found = folder + "/" + name;
    }
  }
  closedir(listing);
}

void LoadModules() {
  for (const char* name :
       {"virtio_ring", "virtio", "virtio_mmio", "virtio_console", "virtio_blk"}) {
    std::string path;
    for (const char* root : {"/lib", "/modules", "/m"}) {
      Find(root, name, &path);
    }
    const int fd = open(path.c_str(), O_RDONLY);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) {
      printf("no module %s: %s\n", name, strerror(errno));
    }
  }
}

std::string ReadText(const std::string& path) {
  char text[4096];
  const int fd = open(path.c_str(), O_RDONLY);
  const ssize_t count = fd < 0 ? -1 : read(fd, text, sizeof(text));
  if (fd >= 0) close(fd);
  if (count <= 0) return "";
  std::string all(text, static_cast<size_t>(count));
  while (!all.empty() && all.back() == '\n') all.pop_back();
  return all;
}

std::vector<std::string> List(const char* folder) {
  std::vector<std::string> names;
  DIR* listing = opendir(folder);
  while (const dirent* entry = listing == nullptr ? nullptr : readdir(listing)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  if (listing != nullptr) closedir(listing);
  std::sort(names.begin(), names.end());
  return names;
}

int OpenChannel() {
  for (int attempt = 0; attempt < 10'000; ++attempt) {
    for (const std::string& port : List("/sys/class/virtio-ports")) {
      if (ReadText("/sys/class/virtio-ports/" + port + "/name") != "agent") continue;
      const int fd = open(("/dev/" + port).c_str(), O_RDWR);
      if (fd >= 0) return fd;
    }
    usleep(1000);
  }
  reboot(RB_POWER_OFF);  // no port: the test sees the VM end
  return -1;
}

std::string Disks() {
  std::string all;
  for (const std::string& disk : List("/sys/block")) {
    if (disk.rfind("vd", 0) != 0) continue;
    all += disk + ":serial=" + ReadText("/sys/block/" + disk + "/serial") +
           ",ro=" + ReadText("/sys/block/" + disk + "/ro") + " ";
  }
  return all;
}

std::string Join(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += word + " ";
  return all;
}

std::string WriteBase() {
  const int fd = open("/dev/vda", O_RDWR);
  const int write_error = fd >= 0 && write(fd, "scribble", 8) == 8 && fsync(fd) == 0 ? 0 : errno;
  return write_error == 0 ? "written" : strerror(write_error);
}

std::string MountRw() {
  mkdir("/rw", 0755);
  if (mount("/dev/vdb", "/rw", "ext4", 0, "") != 0) return std::string("mount: ") + strerror(errno);
  const int fd = open("/rw/notes", O_CREAT | O_WRONLY | O_APPEND, 0644);
  if (fd < 0 || write(fd, "line\n", 5) != 5 || fsync(fd) != 0) return strerror(errno);
  struct stat info{};
  fstat(fd, &info);
  return "bytes=" + std::to_string(info.st_size);
}

std::string FloodConsole() {
  const int console = open("/dev/hvc0", O_WRONLY);
  const std::string line(1023, 'x');
  for (int i = 0; i < 4096; ++i) dprintf(console, "%s\n", line.c_str());
  dprintf(console, "end of flood\n");
  close(console);
  return "flooded";
}

void Obey(const std::string& word, int channel) {
  std::string answer;
  if (word == "ping") answer = "pong";
  static int counted = 0;
  if (word == "count") answer = std::to_string(++counted);
  if (word == "rw-sectors") answer = ReadText("/sys/block/vdb/size");
  if (word == "disks") answer = Disks();
  if (word == "nics") answer = Join(List("/sys/class/net"));
  if (word == "devices") answer = Join(List("/sys/bus/virtio/devices"));
  if (word == "write-base") answer = WriteBase();
  if (word == "mount-rw") answer = MountRw();
  if (word == "flood") answer = FloodConsole();
  if (word == "off") reboot(RB_POWER_OFF);
  if (word == "reset") reboot(RB_AUTOBOOT);
  if (word == "panic") {
    const int fd = open("/proc/sysrq-trigger", O_WRONLY);
    if (write(fd, "c", 1) != 1) answer = "can't panic";
  }
  if (word == "dirty") {  // data in flight for ever: the host cuts it off
    MountRw();
    const int fd = open("/rw/big", O_CREAT | O_WRONLY, 0644);
    const std::string block(65536, 'd');
    dprintf(channel, "writing\n");
    for (int i = 0;; ++i) {
      if (write(fd, block.data(), block.size()) < 0 || i % 64 == 63) lseek(fd, 0, SEEK_SET);
      mkdir(("/rw/d" + std::to_string(i % 500)).c_str(), 0755);
      if (i % 16 == 0) fsync(fd);
    }
  }
  dprintf(channel, "%s\n", answer.c_str());
}

}  // namespace

int main() {
  for (const char* folder : {"/proc", "/sys", "/dev"}) mkdir(folder, 0755);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("sysfs", "/sys", "sysfs", 0, nullptr);
  mount("devtmpfs", "/dev", "devtmpfs", 0, nullptr);
  LoadModules();
  const int channel = OpenChannel();
  dprintf(channel, "READY\n");
  std::string line;
  while (true) {
    char byte = 0;
    if (read(channel, &byte, 1) != 1) {  // nobody is connected
      usleep(10'000);
      continue;
    }
    if (byte != '\n') {
      line.push_back(byte);
      continue;
    }
    Obey(line, channel);
    line.clear();
  }
}
