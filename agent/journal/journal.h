// What the agent must know again after it died: the assignments it holds, the images it made, the
// VMs that may still run. A SQLite database in WAL mode, each call one durable transaction.
//
// Thread-safe. Blocking for about one fsync: short enough for the loop, and a lost journal is a
// lost VM, so nothing goes on before it. An error means that the state folder's disk is full or
// broken.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bunker/agent/v1/journal.pb.h"
#include "bunker/link/v1/agent_link.pb.h"

namespace bunker::agent {

class Journal {
 public:
  virtual ~Journal() = default;

  // Opens or creates `path`. kFailedPrecondition where another agent has it, or where a newer
  // version of the agent wrote it.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& path);

  // How often this journal was opened, durable: the high part of observation versions.
  virtual uint64_t boot_counter() const = 0;

  virtual absl::StatusOr<std::vector<link::v1::Assignment>> Assignments() = 0;
  virtual absl::Status ApplyAssignments(const std::vector<link::v1::Assignment>& rows,
                                        const std::vector<std::string>& removed) = 0;

  // READY images, by image id.
  virtual absl::StatusOr<std::vector<link::v1::ImageObservation>> Images() = 0;
  virtual absl::Status PutImage(const link::v1::ImageObservation& image) = 0;
  virtual absl::Status RemoveImage(const std::string& image_id) = 0;

  // VMs, by bunker id and incarnation.
  virtual absl::StatusOr<std::vector<v1::VmRow>> Vms() = 0;
  virtual absl::Status PutVm(const v1::VmRow& vm) = 0;
  virtual absl::Status RemoveVm(const std::string& bunker_id, uint32_t incarnation) = 0;
  // The VM of row `old_id`, incarnation 1, is `vm` from now on: never both, never neither.
  virtual absl::Status RenameVm(const std::string& old_id, const v1::VmRow& vm) = 0;
};

}  // namespace bunker::agent
