// A file operation's child process: takes the user's identity, does the operation, tells how it
// went. What it may do is what the kernel lets that user do: nothing is checked here for it.
#pragma once

#include "agent/guest/fd.h"
#include "agent/guest/users.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

// In the forked child. Keeps `socket` alone of all descriptors it inherited.
[[noreturn]] void RunFileChild(const v1::FileStart& start, const Identity& identity, Fd socket);

}  // namespace bunker::guest
