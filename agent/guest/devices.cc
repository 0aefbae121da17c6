#include "agent/guest/devices.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/guest/exec_session.h"  // NowMicros
#include "agent/guest/fd.h"
#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

constexpr size_t kMaxAttributeBytes = 4096;

// Opened before the first look, so that no device can slip in between.
Fd OpenDeviceEvents() {
  Fd events(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1;
  if (events.valid() &&
      bind(events.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    events.Close();
  }
  return events;
}

Error WaitFor(const std::string& class_folder, const std::string& attribute,
              const std::string& value, int timeout_ms, std::string* path) {
  const Fd events = OpenDeviceEvents();
  if (!events.valid()) return ErrnoError("listen for device events");
  const uint64_t deadline = NowMicros() + static_cast<uint64_t>(timeout_ms) * 1000;
  for (;;) {
    const std::string found = FindBySysfs(class_folder, attribute, value);
    if (!found.empty()) {
      *path = "/dev/" + found;
      return {};
    }
    const uint64_t now = NowMicros();
    if (now >= deadline) {
      return {"no device with " + attribute + " \"" + value + "\" under " + class_folder};
    }
    pollfd wait{events.get(), POLLIN, 0};
    poll(&wait, 1, static_cast<int>((deadline - now) / 1000) + 1);
    char event[4096];
    while (read(events.get(), event, sizeof(event)) > 0) {
    }
  }
}

}  // namespace

std::string FindBySysfs(const std::string& class_folder, const std::string& attribute,
                        const std::string& value) {
  DIR* folder = opendir(class_folder.c_str());
  if (folder == nullptr) return {};
  std::string found;
  while (const dirent* entry = readdir(folder)) {
    std::string content;
    const std::string path = class_folder + "/" + entry->d_name + "/" + attribute;
    if (entry->d_name[0] == '.' ||
        !ReadSmallFile(AT_FDCWD, path.c_str(), kMaxAttributeBytes, &content).ok()) {
      continue;
    }
    if (!content.empty() && content.back() == '\n') content.pop_back();
    if (content == value) {
      found = entry->d_name;
      break;
    }
  }
  closedir(folder);
  return found;
}

Error WaitForDisk(const std::string& serial, int timeout_ms, std::string* path) {
  return WaitFor("/sys/block", "serial", serial, timeout_ms, path);
}

Error WaitForPort(const std::string& name, int timeout_ms, std::string* path) {
  return WaitFor("/sys/class/virtio-ports", "name", name, timeout_ms, path);
}

}  // namespace bunker::guest
