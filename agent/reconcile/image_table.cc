#include "agent/reconcile/image_table.h"

#include <utility>

#include "common/base/log.h"

namespace bunker::agent {
namespace {

constexpr int64_t kTouchPauseMs = 60'000;

std::string NameOf(const std::string& image_id) {
  return "images/" + image_id;
}

// Whether what was made is what is wanted now. The pinned digest may arrive after the work began.
bool Satisfies(const link::v1::ImageObservation& observed,
               const link::v1::ImageAssignment& wanted) {
  if (observed.status() != link::v1::ImageObservation::READY) return false;
  return wanted.manifest_digest().empty() ||
         wanted.manifest_digest() == observed.resolved().manifest_digest();
}

}  // namespace

void ImageTable::Restore(const link::v1::ImageObservation& ready) {
  Row& row = rows_[ready.image_id()];
  row.observed = ready;
  Publish(row);
}

void ImageTable::Upsert(const link::v1::ImageAssignment& wanted) {
  Row& row = rows_[wanted.image_id()];
  row.wanted = wanted;
  row.is_wanted = true;
  Evaluate(wanted.image_id());
}

void ImageTable::Remove(const std::string& image_id) {
  const auto it = rows_.find(image_id);
  if (it == rows_.end()) return;
  it->second.is_wanted = false;
  if (it->second.job) it->second.job->Cancel();
  Evaluate(image_id);
}

void ImageTable::Evaluate(const std::string& image_id) {
  const auto it = rows_.find(image_id);
  if (it == rows_.end() || it->second.job) return;
  Row& row = it->second;
  if (!row.is_wanted) {
    const std::string recipe = row.observed.recipe_digest();
    work_.Forget(image_id);
    rows_.erase(it);
    sink_.Remove(NameOf(image_id));
    if (!recipe.empty()) EvictIfUnwanted(recipe);
    on_change_(image_id);
    return;
  }
  if (Satisfies(row.observed, row.wanted)) return LookUpTag(row);
  // A dropped file is as final: made again at once, it would fill the disk again.
  const bool failed =
      row.observed.status() == link::v1::ImageObservation::FAILED ||
      (row.observed.status() == link::v1::ImageObservation::EVICTED && row.wanted.expendable());
  // The controller owns the retry: it raises the attempt after its back-off, or on a warm. A
  // digest that it pinned after a mismatch is reason enough as well.
  if (failed && row.wanted.attempt() <= row.observed.attempt()) return;
  StartJob(row);
}

void ImageTable::StartJob(Row& row) {
  row.job = std::make_shared<CancelToken>();
  const std::string image_id = row.wanted.image_id();
  const link::v1::ImageObservation known = row.observed;
  row.observed.Clear();
  row.observed.set_image_id(image_id);
  row.observed.set_attempt(row.wanted.attempt());
  row.observed.set_status(link::v1::ImageObservation::PENDING);
  Publish(row);
  work_.Ensure(
      row.wanted, known, row.job,
      [this, image_id](const link::v1::ImageObservation& progress) {
        const auto it = rows_.find(image_id);
        if (it == rows_.end() || !it->second.job) return;
        it->second.observed = progress;
        Publish(it->second);
      },
      [this, image_id](const link::v1::ImageObservation& result) { OnJobDone(image_id, result); });
}

// Once for each time that the controller raises the number. Never while a job runs, whose result
// would take the answer's place.
void ImageTable::LookUpTag(Row& row) {
  const uint64_t serial = row.wanted.tag_check();
  if (serial == row.observed.tag_check().serial() || row.looking_up_tag) return;
  row.looking_up_tag = true;
  const std::string image_id = row.wanted.image_id();
  work_.LookUpTag(row.wanted, [this, image_id](const link::v1::TagCheck& check) {
    const auto it = rows_.find(image_id);
    if (it == rows_.end()) return;
    Row& found = it->second;
    found.looking_up_tag = false;
    if (found.job || found.observed.status() != link::v1::ImageObservation::READY) return;
    *found.observed.mutable_tag_check() = check;
    work_.Remember(found.observed);
    if (found.is_wanted) Publish(found);
    Evaluate(image_id);
  });
}

void ImageTable::OnJobDone(const std::string& image_id, const link::v1::ImageObservation& result) {
  const auto it = rows_.find(image_id);
  BUNKER_CHECK(it != rows_.end() && it->second.job);
  Row& row = it->second;
  row.job.reset();
  row.observed = result;
  const bool ready = result.status() == link::v1::ImageObservation::READY;
  Log(ready ? Severity::kInfo : Severity::kWarning, ready ? "image.ready" : "image.failed",
      {{"image", image_id},
       {"attempt", result.attempt()},
       {"recipe", result.recipe_digest()},
       {"source", result.source()},
       {"code", result.error_code()},
       {"error", result.error_message()}});
  if (ready) work_.Remember(result);
  if (row.is_wanted) Publish(row);
  Evaluate(image_id);
  on_change_(image_id);
}

void ImageTable::Publish(const Row& row) {
  link::v1::Observation observation;
  observation.set_name(NameOf(row.observed.image_id()));
  *observation.mutable_image() = row.observed;
  sink_.Upsert(observation);
}

const link::v1::ImageAssignment* ImageTable::Wanted(const std::string& image_id) const {
  const auto it = rows_.find(image_id);
  return it != rows_.end() && it->second.is_wanted ? &it->second.wanted : nullptr;
}

std::string ImageTable::ReadyRecipe(const std::string& image_id) const {
  const auto it = rows_.find(image_id);
  if (it == rows_.end() || it->second.observed.status() != link::v1::ImageObservation::READY)
    return "";
  return it->second.observed.recipe_digest();
}

const link::v1::ImageObservation* ImageTable::Failure(const std::string& image_id) const {
  const auto it = rows_.find(image_id);
  if (it == rows_.end() || it->second.job) return nullptr;
  const link::v1::ImageObservation& observed = it->second.observed;
  const bool final =
      observed.status() == link::v1::ImageObservation::FAILED && !observed.retryable();
  return final ? &observed : nullptr;
}

std::map<std::string, std::string> ImageTable::Expendable() const {
  std::map<std::string, std::string> found;
  for (const auto& [id, row] : rows_) {
    const bool ready = row.observed.status() == link::v1::ImageObservation::READY;
    if (row.is_wanted && row.wanted.expendable() && ready && !row.job)
      found[id] = row.observed.recipe_digest();
  }
  return found;
}

void ImageTable::DropFile(const std::string& image_id) {
  const auto it = rows_.find(image_id);
  if (it == rows_.end() || it->second.job) return;
  Row& row = it->second;
  const std::string recipe = row.observed.recipe_digest();
  row.observed.set_status(link::v1::ImageObservation::EVICTED);
  row.observed.clear_recipe_digest();
  row.observed.clear_allocated_bytes();
  work_.Forget(image_id);
  if (!recipe.empty()) EvictIfUnwanted(recipe);
  Publish(row);
  on_change_(image_id);
}

void ImageTable::Touch(const std::string& image_id, int64_t at_unix_ms) {
  const auto it = rows_.find(image_id);
  if (it == rows_.end() || it->second.job) return;
  link::v1::ImageObservation& observed = it->second.observed;
  if (observed.status() != link::v1::ImageObservation::READY) return;
  if (at_unix_ms - observed.last_used_unix_ms() < kTouchPauseMs) return;
  observed.set_last_used_unix_ms(at_unix_ms);
  Publish(it->second);
}

void ImageTable::EvictIfUnwanted(const std::string& recipe_digest) {
  for (const auto& [id, row] : rows_) {
    if (row.observed.recipe_digest() == recipe_digest) return;
  }
  work_.Evict(recipe_digest);
}

void ImageTable::CancelAll() {
  for (auto& [id, row] : rows_) {
    if (row.job) row.job->Cancel();
  }
}

}  // namespace bunker::agent
