// Shows a person where a bake is: a bar redrawn in place on a terminal, one line a stage elsewhere.
//
// Thread-safe. Writes to standard error.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/time/time.h"
#include "common/base/mutex.h"

namespace bunker::agent {

// "baking     [############............]  51 %  140.2 of 273.9 MiB  82.1 MiB/s", without a newline.
std::string FormatStage(const std::string& stage, uint64_t bytes_done, uint64_t bytes_total,
                        absl::Duration spent);

class StageBar {
 public:
  // `live`: on a terminal. `quiet`: shows nothing.
  StageBar(bool live, bool quiet) : live_(live), quiet_(quiet) {}
  ~StageBar() { Clear(); }
  StageBar(const StageBar&) = delete;
  StageBar& operator=(const StageBar&) = delete;

  void Enter(const std::string& stage);
  void Bytes(uint64_t done, uint64_t total);
  // Takes the bar off the screen, for something else is about to be printed.
  void Clear();

 private:
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const bool live_;
  const bool quiet_;
  Mutex mutex_;
  std::string stage_ ABSL_GUARDED_BY(mutex_);
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t total_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time began_ ABSL_GUARDED_BY(mutex_);
  bool drawn_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bunker::agent
