// How many rows of each kind there are, counted from what is committed: one pass over all rows at
// the start, then each change. No row is named.
//
// Written on the core's loop; the instruments are read from anywhere.
#pragma once

#include <string>

#include "common/metrics/metrics.h"
#include "controller/engine/change_set.h"
#include "controller/engine/engine.h"

namespace bunker::controller {

class StateMetrics final : public RowVisitor {
 public:
  // Counts what `engine` has loaded. Before the core's first event.
  explicit StateMetrics(const Engine& engine);

  // A committed batch. On the loop.
  void OnChanges(const ChangeSet& changes);

  void Register(metrics::Registry* registry) const;

  void OnWorker(const Worker& row) override { CountWorker(row, 1); }
  void OnImage(const Image& row) override { CountImage(row, 1); }
  void OnCacheEntry(const CacheEntry& row) override { CountEntry(row, 1); }
  void OnBunker(const Bunker& row) override { CountBunker(row, 1); }

 private:
  void CountWorker(const Worker& row, int64_t n);
  void CountImage(const Image& row, int64_t n);
  void CountEntry(const CacheEntry& row, int64_t n);
  void CountBunker(const Bunker& row, int64_t n);
  void OnBunkerChange(const Change<Bunker>& change);

  metrics::Family<metrics::Gauge> workers_{{"status"}};
  metrics::Family<metrics::Gauge> images_{{"scan_status"}};
  metrics::Family<metrics::Gauge> entries_{{"status"}};
  metrics::Family<metrics::Gauge> bunkers_{{"status", "start_kind"}};
  metrics::Counter placed_;
  metrics::Counter failed_;
  metrics::Histogram start_seconds_{metrics::WaitSeconds()};
};

}  // namespace bunker::controller
