// Removes audit rows that are past their retention, oldest first, a bounded number at a time. The
// chain itself says so: each removal is a row, in the same commit.
//
// On the core's loop, but for reading.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "controller/engine/audit_reader.h"
#include "controller/engine/core.h"

namespace bunker::controller {

class AuditRetention {
 public:
  struct Options {
    absl::Duration keep = absl::InfiniteDuration();  // infinite: nothing is ever removed
    absl::Duration period = absl::Hours(1);
    size_t rows_at_a_time = 1000;
  };

  // Both must outlive it, and no read of `reader`'s may come back after it is gone.
  AuditRetention(Core& core, AuditReader& reader, Options options)
      : core_(core), reader_(reader), options_(options) {}
  ~AuditRetention();
  AuditRetention(const AuditRetention&) = delete;
  AuditRetention& operator=(const AuditRetention&) = delete;

  // The first pass, and the next ones by themselves. On the loop; once.
  void Start();

 private:
  void Pass();
  void Remove(const AuditPage& page);
  void ArmNext(absl::Duration after);

  Core& core_;
  AuditReader& reader_;
  const Options options_;
  Loop::TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bunker::controller
