// What a guest gets once it is up: identity, time, randomness, and the files of /etc that programs
// expect where the image has none.
#pragma once

#include <string>
#include <vector>

#include "agent/guest/error.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

// Host name, machine id, clock, entropy. Everything is tried; one line per failure.
std::vector<std::string> ApplyConfig(const v1::GuestConfig& config);

// The same names as /etc/hostname, /etc/hosts and /etc/resolv.conf tell them. A failure goes to the
// kernel's log: the guest runs without, and says so there.
void WriteNames(const v1::GuestConfig& config);

// lo up.
Error BringLoopbackUp();

// Makes uid 1000 known in `etc_folder` (user "bunker" with the home `home_parent`/bunker) where no
// entry has it, and gid 1000 likewise. What is there stays as it is.
Error EnsureUser1000(const std::string& etc_folder, const std::string& home_parent);

// Writes `name` under `etc_folder` where it is missing or empty; a link stays a link.
Error EnsureEtcFile(const std::string& etc_folder, const std::string& name,
                    const std::string& content);

}  // namespace bunker::guest
