// One package of an RPM database: a header blob, read by hand within its own bounds.
//
// Thread-safe: a free function.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "agent/scan/package_list.h"

namespace bunker::agent {

// Adds the package, and the paths of language metadata that it owns. kInvalidArgument where the
// blob is no header. Keys, which RPM keeps as packages, are left out.
absl::Status ReadRpmHeader(std::string_view blob, PackageList* list);

}  // namespace bunker::agent
