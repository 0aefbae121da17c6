#include "agent/reconcile/scan_table.h"

#include <utility>

#include "common/base/log.h"

namespace bunker::agent {
namespace {

std::string NameOf(const std::string& image_id) {
  return "scans/" + image_id;
}

}  // namespace

void ScanTable::Upsert(const link::v1::ScanAssignment& wanted) {
  Row& row = rows_[wanted.image_id()];
  row.wanted = wanted;
  row.is_wanted = true;
  Evaluate(wanted.image_id());
}

void ScanTable::Remove(const std::string& image_id) {
  const auto it = rows_.find(image_id);
  if (it == rows_.end()) return;
  it->second.is_wanted = false;
  if (it->second.job) it->second.job->Cancel();
  Evaluate(image_id);
}

void ScanTable::OnImageChange(const std::string& image_id) {
  Evaluate(image_id);
}

void ScanTable::Evaluate(const std::string& image_id) {
  const auto it = rows_.find(image_id);
  if (it == rows_.end() || it->second.job) return;
  Row& row = it->second;
  if (!row.is_wanted) {
    const bool told = row.done_generation != 0;
    rows_.erase(it);
    if (told) sink_.Remove(NameOf(image_id));
    return;
  }
  if (row.done_generation == row.wanted.generation()) return;
  const std::string recipe = images_.recipe_of(image_id);
  if (recipe.empty()) return;  // told again once it is there
  row.job = std::make_shared<CancelToken>();
  work_.Scan(
      row.wanted, recipe, row.job,
      [this, image_id](const link::v1::ScanObservation& result) { OnJobDone(image_id, result); });
}

void ScanTable::OnJobDone(const std::string& image_id, const link::v1::ScanObservation& result) {
  const auto it = rows_.find(image_id);
  BUNKER_CHECK(it != rows_.end() && it->second.job);
  Row& row = it->second;
  row.job.reset();
  images_.let_go(result.recipe_digest());
  const bool ok = result.error_message().empty();
  Log(ok ? Severity::kInfo : Severity::kWarning, ok ? "image.scanned" : "image.scan_failed",
      {{"image", image_id},
       {"generation", result.generation()},
       {"bytes", result.output_zstd().size()},
       {"error", result.error_message()}});
  if (row.is_wanted) {
    row.done_generation = result.generation();
    link::v1::Observation observation;
    observation.set_name(NameOf(image_id));
    *observation.mutable_scan() = result;
    sink_.Upsert(observation);
  }
  Evaluate(image_id);
}

}  // namespace bunker::agent
