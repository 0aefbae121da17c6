// How the scan of an image stands: what is under way, and what the last one brought. What was found
// lies in the scan's document, which the store alone holds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "controller/model/enum_names.h"

namespace bunker::controller {

// idle → waiting (for a worker that holds the image) → scanning (on that worker) → matching (its
// inventory against the advisories, here) → idle.
enum class ScanPhase { kIdle, kWaiting, kScanning, kMatching };
inline constexpr EnumName<ScanPhase> kScanPhaseNames[] = {{ScanPhase::kIdle, "idle"},
                                                          {ScanPhase::kWaiting, "waiting"},
                                                          {ScanPhase::kScanning, "scanning"},
                                                          {ScanPhase::kMatching, "matching"}};
inline std::span<const EnumName<ScanPhase>> EnumNames(ScanPhase) {
  return kScanPhaseNames;
}

struct ScanReport {
  std::string id;  // of the image
  ScanPhase phase = ScanPhase::kIdle;
  absl::Time phase_since = absl::UnixEpoch();
  uint64_t generation = 0;  // of the scan; raised with each
  bool requested = false;   // by a caller, and not begun yet

  // Where the image's file is read, or made for it: that file is in use. "" = nowhere.
  std::string worker_id;
  bool assigned = false;  // the worker has a row for it
  uint64_t assignment_version = 0;

  bool has_document = false;
  bool decided = false;  // by a scanner on the worker: advisories that change say nothing new
  std::optional<absl::Time> inventoried_at;
  std::optional<absl::Time> ended_at;  // of the last scan, well or not
  bool again = false;                  // it ended for a reason that time may heal
  std::string advisories_digest;       // that it was matched against
};

// What matching an inventory came to.
struct ScanMatch {
  std::map<std::string, uint32_t> counts;  // by severity, as the contract spells them
  uint32_t packages = 0;
  std::map<std::string, uint32_t> without_data;  // packages by ecosystem
  std::string problem;  // why what was found may not be all; "" = it is all
  std::string advisories_digest;
};

}  // namespace bunker::controller
