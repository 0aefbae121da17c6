// Scans of images: when one is due, where it runs, and what becomes of its answer.
//
// A part of the engine, under its rules: pure, on the core's loop, everything through turns. What
// is slow, matching inventories against advisories, is done elsewhere; it sees rows in phase
// `matching` in the changes, and brings OnMatched().
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/engine.h"
#include "controller/engine/specs.h"
#include "controller/engine/turn.h"
#include "controller/model/link_rows.h"
#include "controller/policy/scan_policy.h"
#include "controller/store/store.h"

namespace bunker::controller {

// Bodies that are written and not kept: in memory only until their commit.
class DocumentTable final : public UndoableTable {
 public:
  explicit DocumentTable(Noun noun) : noun_(noun) {}

  // An empty body removes the row.
  void Put(Turn& turn, const std::string& id, std::string body);

  void Restore(const std::string& id, const std::shared_ptr<const void>& before) override;
  std::shared_ptr<const void> Current(const std::string& id) const override;
  void Report(const std::string& id, const std::shared_ptr<const void>& before, Batch& batch,
              ChangeSet& changes) const override;

 private:
  const Noun noun_;
  std::map<std::string, std::shared_ptr<const std::string>> pending_;
};

class Scans {
 public:
  // Both must outlive it.
  Scans(Engine& engine, Engine::State& state) : engine_(engine), state_(state) {}

  // Once, after the tables are loaded: rows of assigned scans are wanted again.
  void Load(absl::Time now);

  // ---- of the API -------------------------------------------------------------------------------

  // Queues a scan of the image now; one that is under way is followed by another. IMAGE_INACTIVE,
  // AUTHZ_PERMISSION_DENIED, NOT_FOUND. Returns the image's row.
  absl::StatusOr<RowPtr<Image>> Request(Turn& turn, const Caller& caller,
                                        const std::string& image_ref);

  // What is known of the image's scans; null: nothing yet.
  RowPtr<ScanReport> ReportOf(const std::string& image_id) const;

  // OK, or IMAGE_SCAN_FAILED where the operator's gate keeps bunkers of the image from starting.
  absl::Status CheckGate(const Image& image) const;

  // ---- of the matching --------------------------------------------------------------------------

  // Images in phase `matching`, at start.
  std::vector<std::string> Matching() const;
  // Images of which the store has a document.
  std::vector<std::string> WithDocuments() const;

  // The answer for one of them. Stale ones (another generation, another phase) are dropped.
  // `decided`: by a scanner on the worker, so that advisories don't count. `document`: what is
  // stored from now on, with its findings; "" where it stays as it is.
  void OnMatched(Turn& turn, const std::string& image_id, uint64_t generation,
                 const ScanMatch& match, bool decided, std::string document);

  // The advisories are others now: what was matched against older ones is matched again.
  void OnAdvisories(Turn& turn, const std::string& digest);

  // ---- of the link ------------------------------------------------------------------------------

  // An answer is told of once a connection, until its assignment is gone.
  void OnObservation(Turn& turn, const std::string& worker_id, const ScanObservation& seen);
  void OnRejection(Turn& turn, const std::string& worker_id, const std::string& image_id,
                   uint64_t version, const std::string& message);

  // ---- of time ----------------------------------------------------------------------------------

  void Tick(Turn& turn);

 private:
  bool IsDue(const Image& image, const ScanReport* report, absl::Time now) const;
  void LookForDue(Turn& turn);
  void Begin(Turn& turn, const Image& image);
  void Proceed(Turn& turn, const std::string& image_id);
  void ProceedWaiting(Turn& turn, const Image& image, ScanReport report);
  void ProceedScanning(Turn& turn, const Image& image, ScanReport report);
  void Fail(Turn& turn, const std::string& image_id, const std::string& reason, bool again);
  void End(Turn& turn, const std::string& image_id, ScanStatus status, const std::string& summary,
           bool again);
  RowPtr<ScanReport> Put(Turn& turn, ScanReport report);
  ScanCandidate CandidateOf(const Image& image, const Worker& worker) const;
  ScanChoice ChooseFor(const Image& image) const;

  Engine& engine_;
  Engine::State& state_;
  absl::Time last_look_ = absl::InfinitePast();
  std::deque<std::string> due_;   // images, oldest first; looked at again when their turn comes
  std::set<std::string> queued_;  // what is in due_
};

}  // namespace bunker::controller
