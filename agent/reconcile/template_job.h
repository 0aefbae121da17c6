// Makes one template: boots a VM, runs a shell in it once, takes the snapshot and ends the VM.
// Blocking. Thread-safe: free functions over thread-safe parts.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/journal/journal.h"
#include "agent/reconcile/template_store.h"
#include "agent/vm/vmm.h"
#include "common/base/cancel.h"

namespace bunker::agent {

struct TemplateOrder {
  std::string name;  // of its folder and its journal row; no other's
  std::string key;
  std::string recipe_digest;
  uint64_t disk_mb = 0;
  VmSpec spec;  // base disk, kernel, form; folder and private disk are made here
  absl::Duration deadline = absl::Minutes(10);  // in the background a boot may take its time
};

// Nothing is left on the host or in the journal after an error, but a VM that can't be ended: its
// journal row stays, and the agent's next start ends it.
absl::StatusOr<std::shared_ptr<const Template>> MakeTemplate(Vmm& vmm, Journal& journal,
                                                             const TemplateOrder& order,
                                                             CancelToken& cancel);

}  // namespace bunker::agent
