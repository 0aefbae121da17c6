#include "controller/scan/scan_work.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "common/base/converters.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/compress/zstd.h"
#include "controller/engine/scans.h"
#include "controller/scan/matcher.h"

namespace bunker::controller {
namespace {

// Each image waits at most once in each phase; there are fewer images than this.
constexpr size_t kMaxQueuedMatches = 4'000'000;
constexpr size_t kMaxQueuedReads = 1000;
constexpr size_t kMaxOutputBytes = 64 << 20;
constexpr char kNoAdvisories[] =
    "the operator has configured no advisories: set scan.advisories in controller.toml, or a "
    "scanner on the workers";

absl::Status Busy() {
  return ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                     "the controller has too much to read: try again in a moment");
}

std::string DocumentOf(const scan::v1::ScanOutput& output) {
  return absl::Base64Escape(ZstdCompress(output.SerializeAsString()));
}

absl::StatusOr<scan::v1::ScanOutput> OutputOf(const std::string& document) {
  std::string bytes;
  if (!absl::Base64Unescape(document, &bytes)) return absl::DataLossError("not base64");
  ASSIGN_OR_RETURN(const std::string text, ZstdDecompress(bytes, kMaxOutputBytes));
  scan::v1::ScanOutput output;
  if (!output.ParseFromString(text)) return absl::DataLossError("not an inventory");
  return output;
}

bool IsNewMatch(const Change<ScanReport>& change) {
  if (change.after == nullptr || change.after->phase != ScanPhase::kMatching) return false;
  return change.before == nullptr || change.before->phase != ScanPhase::kMatching ||
         change.before->generation != change.after->generation;
}

}  // namespace

ScanWork::ScanWork(Core& core, Store& store, Options options)
    : core_(core),
      store_(store),
      options_(std::move(options)),
      why_none_(kNoAdvisories),
      matching_("scan-match", 1, kMaxQueuedMatches),
      reading_("scan-read", 1, kMaxQueuedReads) {}

ScanWork::~ScanWork() {
  *alive_ = false;
  if (timer_ != 0) core_.loop().CancelTimer(timer_);
  if (started_) core_.Unwatch(watch_);
  matching_.Shutdown();
  reading_.Shutdown();
}

void ScanWork::Start() {
  core_.Post([this](Engine& engine, Turn& turn) {
    std::vector<std::string> with_documents = engine.scans().WithDocuments();
    std::vector<std::pair<std::string, uint64_t>> matching;
    for (const std::string& id : engine.scans().Matching())
      matching.emplace_back(id, engine.scans().ReportOf(id)->generation);
    turn.AfterCommit([this, with_documents = std::move(with_documents),
                      matching = std::move(matching)](const absl::Status&) mutable {
      OnStarted(std::move(with_documents), matching);
    });
  });
}

void ScanWork::OnStarted(std::vector<std::string> with_documents,
                         const std::vector<std::pair<std::string, uint64_t>>& matching) {
  watch_ = core_.Watch([this](const ChangeSet& changes) { OnChanges(changes); });
  started_ = true;
  matching_.Submit([this](CancelToken&) { CheckAdvisories(); }).IgnoreError();
  for (const auto& [id, generation] : matching) SubmitMatch(id, generation);
  reading_.Submit([this, ids = std::move(with_documents)](CancelToken&) { FillIndex(ids); })
      .IgnoreError();
  ArmTimer();
}

void ScanWork::ArmTimer() {
  timer_ = core_.loop().AddTimer(options_.period, [this] {
    // A pass that takes longer than the period is not followed by a queue of others.
    if (matching_.queued() == 0)
      matching_.Submit([this](CancelToken&) { CheckAdvisories(); }).IgnoreError();
    ArmTimer();
  });
}

void ScanWork::OnChanges(const ChangeSet& changes) {
  for (const Change<ScanReport>& change : changes.scan_reports) {
    if (IsNewMatch(change)) SubmitMatch(change.id, change.after->generation);
  }
}

void ScanWork::SubmitMatch(const std::string& image_id, uint64_t generation) {
  const auto submitted = matching_.Submit([this, image_id, generation](CancelToken& cancel) {
    if (cancel.Check().ok()) Match(image_id, generation);
  });
  // At the end of the process alone: the row is found again at the next start.
  if (!submitted.ok()) Log(Severity::kWarning, "scan.match_deferred", {{"image", image_id}});
}

absl::StatusOr<scan::v1::ScanOutput> ScanWork::ReadNow(const std::string& image_id) {
  StoreRange one;
  one.noun = Noun::kScanDocument;
  one.id = image_id;
  ASSIGN_OR_RETURN(const StoredRows rows, ReadAndWait(store_, one));
  if (rows.empty()) return absl::NotFoundError("no scan of the image has brought anything yet");
  return OutputOf(rows.front().body);
}

// On the matching pool.
void ScanWork::Match(const std::string& image_id, uint64_t generation) {
  auto output = ReadNow(image_id);
  ScanMatch match;
  std::string document;
  bool decided = false;
  if (!output.ok()) {
    match.problem = "what the worker sent can't be read: " + std::string(output.status().message());
  } else {
    match = MatchInventory(set_.get(), why_none_, &*output);
    decided = output->decided();
    document = DocumentOf(*output);
    index_.Put(image_id, output->inventory());
  }
  core_.Post([image_id, generation, decided, match = std::move(match),
              document = std::move(document)](Engine& engine, Turn& turn) mutable {
    engine.scans().OnMatched(turn, image_id, generation, match, decided, std::move(document));
  });
}

// On the matching pool. What can't be read is no reason to forget: the next scans fail and say so,
// and when it can be read again, they are matched again.
void ScanWork::CheckAdvisories() {
  if (options_.advisories.empty()) {
    // Those of an earlier life are no longer the operator's wish.
    if (!std::exchange(told_of_none_, true))
      core_.Post([](Engine& engine, Turn& turn) { engine.scans().OnAdvisories(turn, ""); });
    return;
  }
  const auto stamp = FolderStamp(options_.advisories);
  if (stamp.ok() && *stamp == stamp_ && set_ != nullptr) return;
  using Loaded = absl::StatusOr<std::shared_ptr<const AdvisorySet>>;
  Loaded loaded = stamp.ok() ? LoadAdvisories(options_.advisories) : Loaded(stamp.status());
  if (loaded.ok()) {
    stamp_ = *stamp;
    set_ = *std::move(loaded);
    Log(set_->problem.empty() ? Severity::kInfo : Severity::kWarning, "scan.advisories",
        {{"advisories", set_->size()}, {"digest", set_->digest}, {"problem", set_->problem}});
  } else {
    set_ = nullptr;
    why_none_ = std::string(loaded.status().message());
    Log(Severity::kError, "scan.advisories_unreadable", {{"error", why_none_}});
  }
  const std::string digest = set_ == nullptr ? "" : set_->digest;
  core_.Post([digest](Engine& engine, Turn& turn) { engine.scans().OnAdvisories(turn, digest); });
}

// On the reading pool.
void ScanWork::FillIndex(const std::vector<std::string>& image_ids) {
  for (const std::string& id : image_ids) {
    const auto output = ReadNow(id);
    if (output.ok()) index_.Put(id, output->inventory());
  }
  MutexLock lock(mutex_);
  index_filled_ = true;
}

void ScanWork::ReadOutput(const std::string& image_id,
                          absl::AnyInvocable<void(absl::StatusOr<Output>)> done) {
  auto shared = std::make_shared<absl::AnyInvocable<void(absl::StatusOr<Output>)>>(std::move(done));
  const auto submitted = reading_.Submit([this, image_id, shared](CancelToken&) {
    auto output = ReadNow(image_id);
    absl::StatusOr<Output> result(nullptr);
    if (output.ok()) {
      result = std::make_shared<const scan::v1::ScanOutput>(*std::move(output));
    } else {
      result = output.status();
    }
    core_.loop().Post([shared, alive = alive_, result = std::move(result)] {
      if (*alive) (*shared)(result);
    });
  });
  if (!submitted.ok()) (*shared)(Busy());
}

void ScanWork::FindPackages(PackageQuery query,
                            absl::AnyInvocable<void(absl::StatusOr<Hits>)> done) {
  {
    MutexLock lock(mutex_);
    if (!index_filled_) {
      done(ReasonError(absl::StatusCode::kUnavailable, "UNAVAILABLE",
                       "the index of packages is still being read: try again in a moment"));
      return;
    }
  }
  auto shared = std::make_shared<absl::AnyInvocable<void(absl::StatusOr<Hits>)>>(std::move(done));
  const auto submitted = reading_.Submit([this, query = std::move(query), shared](CancelToken&) {
    core_.loop().Post([shared, alive = alive_, hits = index_.Find(query)] {
      if (*alive) (*shared)(hits);
    });
  });
  if (!submitted.ok()) (*shared)(Busy());
}

}  // namespace bunker::controller
