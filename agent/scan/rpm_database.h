// RPM's SQLite database, read from memory.
//
// Thread-safe: a free function.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "agent/scan/package_list.h"

namespace bunker::agent {

// `content` is the whole file; it is changed. Never opens a file, runs no trigger, view or
// extension of the database, and is ended after a bounded amount of work. An error where the
// database can't be read to its end; what was read until then is in the list.
absl::Status ReadRpmDatabase(std::string content, PackageList* list);

}  // namespace bunker::agent
