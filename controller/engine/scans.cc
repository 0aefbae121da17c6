#include "controller/engine/scans.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/state.h"
#include "controller/policy/fanout.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxOpenScans = 64;  // waiting or scanning, of the whole fleet
constexpr uint32_t kMaxScansPerWorker = 2;
constexpr size_t kMaxSummaryBytes = 1024;

bool IsOpen(const ScanReport& report) {
  return report.phase == ScanPhase::kWaiting || report.phase == ScanPhase::kScanning;
}

}  // namespace

// ---- documents --------------------------------------------------------------------------------

void DocumentTable::Put(Turn& turn, const std::string& id, std::string body) {
  const auto it = pending_.find(id);
  turn.NoteWrite(this, id, it == pending_.end() ? nullptr : it->second);
  const auto kept = std::make_shared<const std::string>(std::move(body));
  pending_[id] = kept;
  turn.AfterCommit([this, id, kept](const absl::Status&) {
    const auto found = pending_.find(id);
    if (found != pending_.end() && found->second == kept) pending_.erase(found);
  });
}

void DocumentTable::Restore(const std::string& id, const std::shared_ptr<const void>& before) {
  if (before == nullptr) {
    pending_.erase(id);
  } else {
    pending_[id] = std::static_pointer_cast<const std::string>(before);
  }
}

std::shared_ptr<const void> DocumentTable::Current(const std::string& id) const {
  const auto it = pending_.find(id);
  return it == pending_.end() ? nullptr : it->second;
}

void DocumentTable::Report(const std::string& id, const std::shared_ptr<const void>&, Batch& batch,
                           ChangeSet&) const {
  const auto it = pending_.find(id);
  if (it == pending_.end()) return;
  if (it->second->empty()) {
    batch.push_back({noun_, id, nullptr});
  } else {
    batch.push_back({noun_, id, [body = it->second] { return *body; }});
  }
}

// ---- what callers see -------------------------------------------------------------------------

void Scans::Load(absl::Time now) {
  last_look_ = now;
  for (const auto& [id, report] : state_.scan_reports.rows()) {
    if (!report->assigned) continue;
    state_.desired.LoadRow({report->worker_id, ScanRowName(id), report->assignment_version,
                            ScanAssignment{id, report->generation}});
  }
}

absl::StatusOr<RowPtr<Image>> Scans::Request(Turn& turn, const Caller& caller,
                                             const std::string& image_ref) {
  ASSIGN_OR_RETURN(const RowPtr<Image> image, engine_.FindImage(caller, image_ref));
  if (!MayChange(caller, image->ownership)) {
    return Denied("the image belongs to scope " + std::string(NameOf(image->ownership.scope)),
                  "only its owners may have it scanned");
  }
  if (!image->active) {
    return ReasonError(
        absl::StatusCode::kFailedPrecondition, "IMAGE_INACTIVE",
        "the image " + image->name + " is deactivated: register it again under a new name");
  }
  const RowPtr<ScanReport> found = ReportOf(image->id);
  ScanReport report = found == nullptr ? ScanReport() : *found;
  report.id = image->id;
  // One that has not begun to read the file yet is as good as a new one.
  report.requested = report.phase != ScanPhase::kWaiting;
  Put(turn, std::move(report));
  if (image->build_source.kind == SourceKind::kOci && image->scan_status != ScanStatus::kPending) {
    Image row = *image;
    row.scan_status = ScanStatus::kPending;
    state_.images.Put(turn, std::move(row));
  }
  if (queued_.insert(image->id).second) due_.push_front(image->id);
  return state_.images.Find(image->id);
}

RowPtr<ScanReport> Scans::ReportOf(const std::string& image_id) const {
  return state_.scan_reports.Find(image_id);
}

absl::Status Scans::CheckGate(const Image& image) const {
  const ScanGate gate = state_.options.scan.gate;
  const bool refused = (gate != ScanGate::kOff && image.scan_status == ScanStatus::kFailed) ||
                       (gate == ScanGate::kUnscanned && image.scan_status == ScanStatus::kPending);
  if (!refused) return absl::OkStatus();
  const bool pending = image.scan_status == ScanStatus::kPending;
  return ReasonError(absl::StatusCode::kFailedPrecondition, "IMAGE_SCAN_FAILED",
                     pending ? "the image " + image.name +
                                   " has not been scanned yet: wait until "
                                   "its scan_status is passed"
                             : "the scan of the image " + image.name + " failed: " +
                                   image.scan_summary + ": use a fixed image, or ask the operator");
}

// ---- rows -------------------------------------------------------------------------------------

RowPtr<ScanReport> Scans::Put(Turn& turn, ScanReport report) {
  const RowPtr<ScanReport> before = ReportOf(report.id);
  const std::string name = ScanRowName(report.id);
  if (before != nullptr && before->assigned &&
      (!report.assigned || before->worker_id != report.worker_id)) {
    state_.desired.Erase(turn, before->worker_id + "/" + name);
  }
  if (report.assigned) {
    const ScanAssignment wanted{report.id, report.generation};
    const DesiredRowPtr present = state_.desired.Find(report.worker_id + "/" + name);
    if (present == nullptr || !(std::get<ScanAssignment>(present->row) == wanted)) {
      report.assignment_version = state_.NextVersion();
      state_.desired.Put(turn, {report.worker_id, name, report.assignment_version, wanted});
    }
  }
  return state_.scan_reports.Put(turn, std::move(report));
}

void Scans::End(Turn& turn, const std::string& image_id, ScanStatus status,
                const std::string& summary, bool again) {
  const RowPtr<ScanReport> found = ReportOf(image_id);
  ScanReport report = found == nullptr ? ScanReport() : *found;
  report.id = image_id;
  report.phase = ScanPhase::kIdle;
  report.phase_since = turn.now();
  report.ended_at = turn.now();
  report.again = again;
  report.worker_id.clear();
  report.assigned = false;
  const bool requested = report.requested;
  Put(turn, std::move(report));
  Image image = *state_.images.Find(image_id);
  // One that a caller waits for comes right behind.
  image.scan_status = requested ? ScanStatus::kPending : status;
  image.scan_summary = summary.substr(0, kMaxSummaryBytes);
  image.scanned_at = turn.now();
  state_.images.Put(turn, std::move(image));
  if (requested && queued_.insert(image_id).second) due_.push_front(image_id);
  Log(status == ScanStatus::kFailed ? Severity::kWarning : Severity::kInfo, "image.scan_ended",
      {{"image", image_id}, {"status", NameOf(status)}, {"summary", summary}});
}

void Scans::Fail(Turn& turn, const std::string& image_id, const std::string& reason, bool again) {
  End(turn, image_id, ScanStatus::kFailed, "the scan failed: " + reason, again);
}

// ---- time -------------------------------------------------------------------------------------

bool Scans::IsDue(const Image& image, const ScanReport* report, absl::Time now) const {
  if (!image.active) return false;
  if (report == nullptr || report->requested || !report->ended_at) return true;
  return report->again || now - *report->ended_at >= state_.options.scan.max_age;
}

void Scans::LookForDue(Turn& turn) {
  for (const auto& [id, image] : state_.images.rows()) {
    const RowPtr<ScanReport> report = ReportOf(id);
    if (report != nullptr && report->phase != ScanPhase::kIdle) continue;
    if (IsDue(*image, report.get(), turn.now()) && queued_.insert(id).second) due_.push_back(id);
  }
}

void Scans::Tick(Turn& turn) {
  if (turn.now() - last_look_ >= state_.options.scan.period) {
    last_look_ = turn.now();
    LookForDue(turn);
  }
  const std::set<std::string> open = state_.open_scans;  // a copy: it changes
  for (const std::string& id : open) Proceed(turn, id);
  while (!due_.empty() && state_.open_scans.size() < kMaxOpenScans) {
    const std::string id = std::move(due_.front());
    due_.pop_front();
    queued_.erase(id);
    const RowPtr<Image> image = state_.images.Find(id);
    const RowPtr<ScanReport> report = ReportOf(id);
    const bool idle = report == nullptr || report->phase == ScanPhase::kIdle;
    if (image != nullptr && idle && IsDue(*image, report.get(), turn.now())) Begin(turn, *image);
  }
}

void Scans::Begin(Turn& turn, const Image& image) {
  const RowPtr<ScanReport> found = ReportOf(image.id);
  ScanReport report = found == nullptr ? ScanReport() : *found;
  report.id = image.id;
  report.requested = false;
  if (image.build_source.kind != SourceKind::kOci) {
    Put(turn, std::move(report));
    End(turn, image.id, ScanStatus::kSkipped, "the image has no OCI reference to scan", false);
    return;
  }
  ++report.generation;
  report.phase = ScanPhase::kWaiting;
  report.phase_since = turn.now();
  Put(turn, std::move(report));
  Proceed(turn, image.id);
}

void Scans::Proceed(Turn& turn, const std::string& image_id) {
  const RowPtr<ScanReport> report = ReportOf(image_id);
  const RowPtr<Image> image = state_.images.Find(image_id);
  if (!IsOpen(*report)) return;
  if (!image->active) {
    Fail(turn, image_id, "the image was deactivated", false);
  } else if (report->phase == ScanPhase::kWaiting) {
    ProceedWaiting(turn, *image, *report);
  } else {
    ProceedScanning(turn, *image, *report);
  }
}

ScanCandidate Scans::CandidateOf(const Image& image, const Worker& worker) const {
  ScanCandidate one;
  one.worker_id = worker.id;
  one.online = worker.status == WorkerStatus::kOnline;
  one.reachable = worker.status != WorkerStatus::kOffline;
  one.eligible =
      MayUseWorker(image.ownership, worker) && Suits(image, worker) == SkipReason::kNone;
  // The table keeps it.
  one.entry = state_.entries.Find(CacheEntry::Key(image.id, worker.id)).get();
  for (const std::string& scanned : state_.scans_of_worker.Of(worker.id)) {
    if (ReportOf(scanned)->assigned) ++one.open_scans;
  }
  return one;
}

// Those who know the image are asked first: the fleet may be large.
ScanChoice Scans::ChooseFor(const Image& image) const {
  std::vector<ScanCandidate> candidates;
  for (const std::string& id : state_.workers_of_image.Of(image.id))
    candidates.push_back(CandidateOf(image, *state_.workers.Find(id)));
  ScanChoice choice = ChooseForScan(candidates, kMaxScansPerWorker);
  if (choice.kind != ScanChoice::Kind::kNobody) return choice;
  candidates.clear();
  for (const auto& [id, worker] : state_.workers.rows())
    candidates.push_back(CandidateOf(image, *worker));
  return ChooseForScan(candidates, kMaxScansPerWorker);
}

void Scans::ProceedWaiting(Turn& turn, const Image& image, ScanReport report) {
  const ScanChoice choice = ChooseFor(image);
  switch (choice.kind) {
    case ScanChoice::Kind::kScan:
      report.phase = ScanPhase::kScanning;
      report.phase_since = turn.now();
      report.worker_id = choice.worker_id;
      report.assigned = true;
      Put(turn, std::move(report));
      return;
    case ScanChoice::Kind::kBake:
      // The report's own use of the file is what wants it there; see EntryInUse().
      report.worker_id = choice.worker_id;
      Put(turn, std::move(report));
      engine_.WantForScan(turn, image, choice.worker_id);
      return;
    case ScanChoice::Kind::kFail:
      Fail(turn, image.id, choice.reason, /*again=*/true);
      return;
    case ScanChoice::Kind::kNobody:
      Fail(turn, image.id, "no worker that the image may use is online: start one, or wait for it",
           /*again=*/true);
      return;
    case ScanChoice::Kind::kWait:
      if (turn.now() - report.phase_since >= state_.options.scan.wait_deadline)
        Fail(turn, image.id, "no worker made the image in time", /*again=*/true);
      return;
  }
}

void Scans::ProceedScanning(Turn& turn, const Image& image, ScanReport report) {
  const RowPtr<Worker> worker = state_.workers.Find(report.worker_id);
  const RowPtr<CacheEntry> entry = state_.entries.Find(CacheEntry::Key(image.id, report.worker_id));
  const bool gone = worker == nullptr || worker->status == WorkerStatus::kOffline ||
                    entry == nullptr || entry->status != CacheStatus::kReady;
  if (gone) {
    report.phase = ScanPhase::kWaiting;
    report.worker_id.clear();
    report.assigned = false;
    Put(turn, std::move(report));
    return;
  }
  if (turn.now() - report.phase_since >= state_.options.scan.deadline) {
    Fail(turn, image.id,
         "worker " + worker->name + " did not answer in " +
             absl::FormatDuration(state_.options.scan.deadline),
         /*again=*/true);
  }
}

// ---- the link ---------------------------------------------------------------------------------

void Scans::OnObservation(Turn& turn, const std::string& worker_id, const ScanObservation& seen) {
  const RowPtr<ScanReport> found = ReportOf(seen.image_id);
  if (found == nullptr || !found->assigned || found->worker_id != worker_id ||
      found->generation != seen.generation) {
    return;  // its row is gone already, or about to be replaced
  }
  if (seen.output_zstd.empty()) {
    Fail(turn, seen.image_id, seen.error_message.empty() ? "no reason given" : seen.error_message,
         /*again=*/true);
    return;
  }
  ScanReport report = *found;
  report.phase = ScanPhase::kMatching;
  report.phase_since = turn.now();
  report.worker_id.clear();
  report.assigned = false;
  report.has_document = true;
  report.inventoried_at = turn.now();
  state_.scan_documents.Put(turn, report.id, absl::Base64Escape(seen.output_zstd));
  Put(turn, std::move(report));
}

void Scans::OnRejection(Turn& turn, const std::string& worker_id, const std::string& image_id,
                        uint64_t version, const std::string& message) {
  const RowPtr<ScanReport> found = ReportOf(image_id);
  if (found == nullptr || !found->assigned || found->worker_id != worker_id ||
      found->assignment_version != version) {
    return;
  }
  Fail(turn, image_id, "the worker refused: " + message, /*again=*/false);
}

// ---- matching ---------------------------------------------------------------------------------

std::vector<std::string> Scans::Matching() const {
  std::vector<std::string> ids;
  for (const auto& [id, report] : state_.scan_reports.rows()) {
    if (report->phase == ScanPhase::kMatching) ids.push_back(id);
  }
  return ids;
}

std::vector<std::string> Scans::WithDocuments() const {
  std::vector<std::string> ids;
  for (const auto& [id, report] : state_.scan_reports.rows()) {
    if (report->has_document) ids.push_back(id);
  }
  return ids;
}

void Scans::OnMatched(Turn& turn, const std::string& image_id, uint64_t generation,
                      const ScanMatch& match, bool decided, std::string document) {
  const RowPtr<ScanReport> found = ReportOf(image_id);
  if (found == nullptr || found->phase != ScanPhase::kMatching || found->generation != generation) {
    return;
  }
  ScanReport report = *found;
  report.advisories_digest = match.advisories_digest;
  report.decided = decided;
  Put(turn, std::move(report));
  if (!document.empty()) state_.scan_documents.Put(turn, image_id, std::move(document));
  const ScanVerdict verdict = VerdictOf(match, state_.options.scan.unknown_fails);
  End(turn, image_id, verdict.status, verdict.summary, /*again=*/false);
}

void Scans::OnAdvisories(Turn& turn, const std::string& digest) {
  std::vector<RowPtr<ScanReport>> stale;
  for (const auto& [id, report] : state_.scan_reports.rows()) {
    if (report->phase == ScanPhase::kIdle && report->has_document && !report->decided &&
        report->advisories_digest != digest && state_.images.Find(id)->active) {
      stale.push_back(report);
    }
  }
  for (const RowPtr<ScanReport>& found : stale) {
    ScanReport report = *found;
    report.phase = ScanPhase::kMatching;
    report.phase_since = turn.now();
    ++report.generation;
    Put(turn, std::move(report));
  }
}

}  // namespace bunker::controller
