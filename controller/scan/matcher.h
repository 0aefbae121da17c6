// Holds what is installed in an image against advisories.
//
// Thread-safe: free functions over what is immutable.
#pragma once

#include <string>
#include <string_view>

#include "bunker/scan/v1/inventory.pb.h"
#include "common/version/version.h"
#include "controller/model/scan_report.h"
#include "controller/scan/advisories.h"

namespace bunker::controller {

enum class Affects { kNo, kYes, kUnclear };

// By OSV's rules: whether `version` is listed, or lies in a range. kUnclear where a version can't
// be compared. `fixed`, may be null, gets the oldest version known to be fixed, or "".
Affects IsAffected(const AffectedPackage& package, std::string_view version, VersionScheme scheme,
                   std::string* fixed);

// Sets `output->findings` (but for those of a scanner that has decided) and sums them up.
// `advisories` null: none are to be had, and `why` says why.
ScanMatch MatchInventory(const AdvisorySet* advisories, const std::string& why,
                         scan::v1::ScanOutput* output);

}  // namespace bunker::controller
