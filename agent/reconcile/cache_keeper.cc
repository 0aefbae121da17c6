#include "agent/reconcile/cache_keeper.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

// A pull that rests for less than this may be about to go on.
constexpr absl::Duration kRestingPull = absl::Minutes(1);
constexpr uint64_t kMinNoticeableBytes = 1 << 20;

uint64_t Difference(uint64_t a, uint64_t b) {
  return a > b ? a - b : b - a;
}

}  // namespace

CacheKeeper::CacheKeeper(Loop& loop, WorkerPool& pool, BlobStore& blobs, ImageStore& images,
                         ImageTable& table, ObservationSink& sink,
                         std::function<bool(const std::string&)> in_use, Options options)
    : loop_(loop),
      pool_(pool),
      blobs_(blobs),
      images_(images),
      table_(table),
      sink_(sink),
      in_use_(std::move(in_use)),
      options_(std::move(options)) {}

CacheKeeper::~CacheKeeper() {
  *alive_ = false;
  loop_.CancelTimer(timer_);
}

void CacheKeeper::Start() {
  Check();
}

CacheKeeper::Bounds CacheKeeper::BoundsOf(const DiskUsage& usage) const {
  return {usage.capacity_bytes / 100 * options_.high_percent,
          usage.capacity_bytes / 100 * options_.low_percent};
}

void CacheKeeper::Check() {
  const auto submitted = pool_.Submit([this, alive = alive_](CancelToken&) {
    auto measured = MeasureAndDrop();
    loop_.Post([this, alive, measured = std::move(measured)] {
      if (*alive) OnMeasured(measured);
    });
  });
  if (!submitted.ok()) Arm();
}

void CacheKeeper::Arm() {
  timer_ = loop_.AddTimer(options_.period, [this] { Check(); });
}

absl::StatusOr<DiskUsage> CacheKeeper::MeasureAndDrop() {
  ASSIGN_OR_RETURN(DiskUsage usage, MeasureDisk(options_.state_dir, options_.cap_bytes));
  const Bounds bounds = BoundsOf(usage);
  if (usage.used_bytes > bounds.high_bytes) {
    blobs_.DropPartials(kRestingPull);
    DropBlobs(usage, bounds.low_bytes);
  }
  blobs_.SetBudget(usage.free_bytes());
  return usage;
}

void CacheKeeper::DropBlobs(DiskUsage& usage, uint64_t target_bytes) {
  std::vector<BlobInfo> unread = blobs_.List();
  std::erase_if(unread, [](const BlobInfo& blob) { return blob.pins > 0; });
  std::sort(unread.begin(), unread.end(),
            [](const BlobInfo& a, const BlobInfo& b) { return a.last_used < b.last_used; });
  for (const BlobInfo& blob : unread) {
    if (usage.used_bytes <= target_bytes) return;
    const absl::Status removed = blobs_.Remove(blob.digest);
    Log(Severity::kInfo, "blob.collected",
        {{"digest", blob.digest.str()},
         {"why", "the disk is full"},
         {"status", std::string(removed.message())}});
    if (!removed.ok()) continue;
    usage.used_bytes -= std::min(usage.used_bytes, blob.size_bytes);
    usage.cache_bytes -= std::min(usage.cache_bytes, blob.size_bytes);
  }
}

void CacheKeeper::OnMeasured(const absl::StatusOr<DiskUsage>& measured) {
  Arm();
  if (!measured.ok()) {
    Log(Severity::kError, "disk.not_measured", {{"error", measured.status().ToString()}});
    return;
  }
  const Bounds bounds = BoundsOf(*measured);
  Publish(*measured);
  if (measured->used_bytes <= bounds.low_bytes) full_ = false;
  if (measured->used_bytes > bounds.high_bytes) full_ = true;
  if (full_) DropImages(measured->used_bytes, bounds);
}

void CacheKeeper::DropImages(uint64_t used_bytes, const Bounds& bounds) {
  struct Candidate {
    std::string image_id;
    BakedImage image;
  };
  std::vector<Candidate> candidates;
  for (const auto& [image_id, recipe] : table_.Expendable()) {
    const auto image = images_.Find(recipe);
    if (image && !in_use_(recipe) && !images_.IsPinned(recipe))
      candidates.push_back({image_id, *image});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.image.last_used < b.image.last_used;
  });
  for (const Candidate& candidate : candidates) {
    if (used_bytes <= bounds.low_bytes) return;
    Log(Severity::kInfo, "image.dropped",
        {{"image", candidate.image_id},
         {"why", "the disk is full"},
         {"bytes", candidate.image.allocated_bytes}});
    table_.DropFile(candidate.image_id);
    // Images of equal layers share a file: it goes with the last of them.
    if (!images_.Find(candidate.image.recipe_digest))
      used_bytes -= std::min(used_bytes, candidate.image.allocated_bytes);
  }
}

void CacheKeeper::Publish(const DiskUsage& usage) {
  const uint64_t noticeable = std::max(kMinNoticeableBytes, usage.capacity_bytes / 100);
  const bool same = Difference(usage.capacity_bytes, told_.capacity_bytes) < noticeable &&
                    Difference(usage.used_bytes, told_.used_bytes) < noticeable &&
                    Difference(usage.cache_bytes, told_.cache_bytes) < noticeable;
  if (same && std::exchange(has_told_, true)) return;
  has_told_ = true;
  told_ = usage;
  const Bounds bounds = BoundsOf(usage);
  link::v1::Observation row;
  row.set_name("disk");
  link::v1::DiskObservation& disk = *row.mutable_disk();
  disk.set_capacity_bytes(usage.capacity_bytes);
  disk.set_used_bytes(usage.used_bytes);
  disk.set_cache_bytes(usage.cache_bytes);
  disk.set_high_bytes(bounds.high_bytes);
  disk.set_low_bytes(bounds.low_bytes);
  sink_.Upsert(row);
}

}  // namespace bunker::agent
