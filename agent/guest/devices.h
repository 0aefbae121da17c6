// Devices by what they say of themselves, not by the order in which they were found.
#pragma once

#include <string>

#include "agent/guest/error.h"

namespace bunker::guest {

// Waits, woken by the kernel's device events, until the virtio disk with `serial` is there;
// `path` is its node, "/dev/vda".
Error WaitForDisk(const std::string& serial, int timeout_ms, std::string* path);

// The same for a virtio-serial port by its name; "/dev/vport0p1".
Error WaitForPort(const std::string& name, int timeout_ms, std::string* path);

// The first entry of `class_folder` whose `attribute` holds exactly `value` (a final newline
// aside); "" where there is none.
std::string FindBySysfs(const std::string& class_folder, const std::string& attribute,
                        const std::string& value);

}  // namespace bunker::guest
