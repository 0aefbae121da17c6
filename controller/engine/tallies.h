// The counters of every image's cache rows, kept as the rows change: a list of images must not
// look at thousands of workers' rows for each.
//
// Not thread-safe: belongs to the engine.
#pragma once

#include <map>
#include <string>

#include "absl/functional/function_ref.h"
#include "controller/engine/specs.h"
#include "controller/model/cache_entry.h"
#include "controller/model/worker.h"

namespace bunker::controller {

class Tallies {
 public:
  // A row of a worker as both are at that moment. What was added is removed with the same two.
  void Add(const CacheEntry& entry, const Worker& worker) { Change(entry, worker, 1); }
  void Remove(const CacheEntry& entry, const Worker& worker) { Change(entry, worker, -1); }

  // Of all workers in scope.
  WarmSummary WarmOf(const std::string& image_id) const;
  // Of the rows whose worker passes `visible`, which looks at nothing but its ownership and
  // whether it is shared.
  CacheSummary CacheOf(const std::string& image_id,
                       absl::FunctionRef<bool(const Worker&)> visible) const;

 private:
  struct Tally {
    Worker worker;  // with what visibility depends on alone
    WarmSummary warm;
    CacheSummary cache;
    uint64_t rows = 0;
  };

  void Change(const CacheEntry& entry, const Worker& worker, int by);

  std::map<std::string, std::map<std::string, Tally>> tallies_;  // by image, by kind of worker
};

}  // namespace bunker::controller
