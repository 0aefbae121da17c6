// Where an image is scanned, and what a scan's outcome says. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "controller/model/cache_entry.h"
#include "controller/model/image.h"
#include "controller/model/scan_report.h"

namespace bunker::controller {

// A worker, as far as an image's scan is concerned.
struct ScanCandidate {
  std::string worker_id;
  bool online = false;                // takes new images
  bool reachable = false;             // online or draining: what it holds can be read
  bool eligible = false;              // the image's owner may use it, and the image is of use there
  const CacheEntry* entry = nullptr;  // of the image on it; null: none
  uint32_t open_scans = 0;
};

struct ScanChoice {
  enum class Kind {
    kScan,    // `worker_id` holds the image
    kBake,    // nobody does, nor is about to: have it made on `worker_id`
    kWait,    // somebody is about to, or all who hold it have enough to do
    kFail,    // `reason` says why it can't be had
    kNobody,  // none of the candidates has it, and none may make it
  };
  Kind kind = Kind::kWait;
  std::string worker_id;
  std::string reason;
};

// Prefers the least busy, then the first by id. `max_open_scans`: of one worker.
ScanChoice ChooseForScan(const std::vector<ScanCandidate>& candidates, uint32_t max_open_scans);

struct ScanVerdict {
  ScanStatus status = ScanStatus::kFailed;
  std::string summary;  // counts, and what was not looked at
};

// `unknown_fails`: vulnerabilities of unknown severity fail as high ones do.
ScanVerdict VerdictOf(const ScanMatch& match, bool unknown_fails);

}  // namespace bunker::controller
