// What external scanners print, read with bounds. The programs are the operator's, their input was
// a tenant's: nothing is taken on trust, and what is no finding is an error, never no finding.
//
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bunker/scan/v1/inventory.pb.h"

namespace bunker::agent {

// `trivy … --format json` and `grype … -o json`.
absl::StatusOr<std::vector<scan::v1::Finding>> ReadTrivy(const std::string& json);
absl::StatusOr<std::vector<scan::v1::Finding>> ReadGrype(const std::string& json);

// `debsecan --format summary`: "CVE-2023-1234 libfoo1 (fixed, low urgency)" a line. Versions are
// taken from the inventory.
absl::StatusOr<std::vector<scan::v1::Finding>> ReadDebsecan(const std::string& text,
                                                            const scan::v1::Inventory& inventory);

}  // namespace bunker::agent
