// What the two ends of a replicated table exchange. See sync_sender.h for the algorithm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/base/log.h"

namespace bunker {

// Name → version. A version is opaque: compared by equality only, and never given to a second
// content of the same name, not even by a later process (see VersionCounter).
using VersionMap = std::map<std::string, uint64_t>;

template <typename Row>
struct SyncRow {
  std::string name;
  uint64_t version = 0;
  Row row;
};

template <typename Row>
struct SyncFrame {
  uint64_t frame = 0;   // 1, 2, 3… within a session
  bool synced = false;  // this frame completes what was known when the session began
  std::vector<SyncRow<Row>> rows;
  std::vector<std::string> removed;
};

// A row that the receiver will not take. It is told once per session; the sender's user sees it.
struct SyncRejection {
  std::string name;
  uint64_t version = 0;
  std::string code;  // a reason of the error table
  std::string message;
};

// One frame never holds more than this, but for a single row that alone is larger: whoever
// admits rows bounds their size.
struct SyncLimits {
  size_t max_rows = 512;
  size_t max_bytes = 1 << 20;
};

// Versions for a table that is rebuilt at every start of its process: the persisted number of
// the start in the upper bits makes sure that no version ever comes back.
//
// Not thread-safe.
class VersionCounter {
 public:
  // `boot_counter` is raised and made durable before each start. REQUIRES: 0 < it < 2^24.
  explicit VersionCounter(uint64_t boot_counter) : next_(boot_counter << kBits) {
    BUNKER_CHECK(boot_counter > 0 && boot_counter < (uint64_t{1} << (64 - kBits)));
  }
  uint64_t Next() { return ++next_; }
  // The newest one given; below all of later starts.
  uint64_t last() const { return next_; }

 private:
  static constexpr int kBits = 40;
  uint64_t next_;
};

}  // namespace bunker
