// Draws the cache view of an image: one line a worker, redrawn in place on a terminal, and one
// line a change elsewhere.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace bunker::ctl {

// One row of GET /images/{id}/cache, as far as it is shown.
struct CacheRow {
  std::string worker_id;
  std::string worker_name;
  std::string status;  // pending | building | ready | failed | evicted
  std::string stage;   // resolving | pulling | baking | verifying, or empty
  uint64_t bytes_done = 0;
  std::optional<uint64_t> bytes_total;
  std::optional<uint64_t> rate_bytes_per_s;
  std::optional<double> eta_s;
  std::string error_code;
  std::string error_message;
};

// "worker-1  pulling    [#####.....]  48 %  33.1 MiB of 68.0 MiB  21.0 MiB/s  ETA 2 s".
// `name_width` pads the first column.
std::string FormatProgressLine(const CacheRow& row, size_t name_width);

class ProgressView {
 public:
  // `live`: redraw in place with terminal escapes; otherwise one line a change and, for bytes
  // alone, at most one every two seconds a worker.
  explicit ProgressView(bool live) : live_(live) {}

  // Takes a row and returns the text to print now (possibly empty).
  std::string Update(const CacheRow& row, absl::Time now);

  // The worker is no longer to have the image.
  void Remove(const std::string& worker_id) { rows_.erase(worker_id); }

  // True once there is a row and each is ready, failed, evicted or left out for a reason.
  bool Settled() const;
  bool AnyNotReady() const;
  size_t row_count() const { return rows_.size(); }
  // Each row that failed or was left out as "worker: CODE: message", one a line.
  std::string Failures() const;

 private:
  std::string Redraw();

  const bool live_;
  std::map<std::string, CacheRow> rows_;  // by worker id
  std::map<std::string, absl::Time> printed_at_;
  size_t lines_drawn_ = 0;
};

}  // namespace bunker::ctl
