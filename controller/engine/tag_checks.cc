// Tags that move: every now and then one worker asks the registry what an image's tag names. What
// it says is noted and not followed.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "controller/engine/engine.h"
#include "controller/engine/image_ref.h"
#include "controller/engine/state.h"

namespace bunker::controller {

// So many a tick at most: after a long stop all of them are due at once.
void Engine::TickTagChecks(Turn& turn) {
  State& s = *state_;
  for (size_t i = 0; i < s.options.tag_checks_per_tick && !s.tag_checks.empty(); ++i) {
    const auto [due, image_id] = *s.tag_checks.begin();
    if (due > turn.now()) return;
    Image image = *s.images.Find(image_id);
    // A tenth more or less, so that what was due together does not stay together.
    image.tag_check_at =
        turn.now() +
        s.options.tag_check_period * (0.9 + 0.2 * static_cast<double>(s.rng.Below(1000)) / 1000);
    s.images.Put(turn, std::move(image));
    std::vector<RowPtr<CacheEntry>> able;
    for (const std::string& worker_id : s.workers_of_image.Of(image_id)) {
      RowPtr<CacheEntry> entry = s.entries.Find(CacheEntry::Key(image_id, worker_id));
      if (entry->assigned && entry->status == CacheStatus::kReady &&
          s.workers.Find(worker_id)->status == WorkerStatus::kOnline) {
        able.push_back(std::move(entry));
      }
    }
    if (able.empty()) continue;
    CacheEntry chosen = *able[s.rng.Below(able.size())];
    ++chosen.tag_check;
    PutEntry(turn, std::move(chosen));
  }
}

void Engine::ObserveTag(Turn& turn, CacheEntry& entry, const ImageObservation& seen) {
  State& s = *state_;
  // Each is heard once: told again with a later change of the row, it may be out of date.
  if (seen.tag_check != entry.tag_check || seen.tag_check == entry.tag_check_seen) return;
  entry.tag_check_seen = seen.tag_check;
  const RowPtr<Image> found = s.images.Find(entry.image_id);
  if (!found->resolved || seen.tag_digest.empty()) return;
  const ResolvedImage& resolved = *found->resolved;
  const bool moved =
      seen.tag_digest != resolved.manifest_digest && seen.tag_digest != resolved.index_digest;
  if (moved ? found->tag_moved && found->tag_moved->digest == seen.tag_digest : !found->tag_moved) {
    return;
  }
  Image image = *found;
  image.tag_moved.reset();
  if (moved) image.tag_moved = TagMoved{seen.tag_digest.substr(0, 128), turn.now()};
  image.updated_at = turn.now();
  Log(Severity::kInfo, moved ? "image.tag_moved" : "image.tag_back",
      {{"image", image.id}, {"digest", seen.tag_digest.substr(0, 128)}});
  s.images.Put(turn, std::move(image));
}

}  // namespace bunker::controller
