// When a wanted row becomes work: its turn has come, its worker works, and its disk has room.
#include <string>
#include <utility>
#include <vector>

#include "controller/engine/engine.h"
#include "controller/engine/state.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxNamedImages = 5;

}  // namespace

void Engine::Admit(Turn& turn) {
  State& s = *state_;
  for (const std::string& worker : std::exchange(s.room_changed, {})) RecheckRoom(turn, worker);
  while (const std::optional<std::string> key = s.queue.Next()) {
    AdmitEntry(turn, *s.entries.Find(*key));
  }
}

void Engine::AdmitEntry(Turn& turn, const CacheEntry& found) {
  State& s = *state_;
  s.queue.Served(found.queue_tag);
  if (!found.wanted && !EntryInUse(found)) return UnwantEntry(turn, found);
  const RowPtr<Image> image = s.images.Find(found.image_id);
  const RowPtr<Worker> worker = s.workers.Find(found.worker_id);
  const uint64_t needed = NeededBytes(*image);
  const RoomVerdict room = MakeRoom(needed, s.CacheOf(*worker, turn.now()));
  if (!room.fits && room.could) {
    // Its turn comes again when the worker has told that these are gone.
    s.queue.Stall(worker->id);
    for (const std::string& id : room.evict) {
      Log(Severity::kInfo, "image.evicted",
          {{"image", id}, {"worker", worker->id}, {"to_make_room_for", image->id}});
      DropAssignment(turn, *s.entries.Find(CacheEntry::Key(id, worker->id)));
    }
    return;
  }
  CacheEntry entry = found;
  entry.updated_at = turn.now();
  if (room.fits) {
    entry.assigned = true;
    entry.reserved_bytes = needed;
  } else {
    entry.skip = SkipReason::kNoRoom;
    entry.error_code = "DISK_FULL";
    entry.error_message = NoRoomMessage(needed, room);
  }
  PutEntry(turn, std::move(entry));
}

std::string Engine::NoRoomMessage(uint64_t needed_bytes, const RoomVerdict& room) const {
  std::string text = "the image needs " + Mib(needed_bytes) + " and the worker's cache has " +
                     Mib(room.free_bytes) + " left: ";
  if (room.in_the_way.empty()) {
    return text + "what is there is in use by bunkers; delete some, or use another worker";
  }
  text += "detach what would have to be evicted (";
  for (size_t i = 0; i < room.in_the_way.size(); ++i) {
    if (i == kMaxNamedImages) {
      text += " and " + std::to_string(room.in_the_way.size() - i) + " more";
      break;
    }
    const RowPtr<Image> image = state_->images.Find(room.in_the_way[i]);
    text += (i == 0 ? "" : ", ") + (image == nullptr ? room.in_the_way[i] : image->name);
  }
  return text + "), or use another worker";
}

// Its disk may have room now: what was left out for lack of it gets another turn.
void Engine::RecheckRoom(Turn& turn, const std::string& worker_id) {
  State& s = *state_;
  s.queue.Wake(worker_id);
  const RowPtr<Worker> worker = s.workers.Find(worker_id);
  const std::set<std::string> images = s.no_room_of_worker.Of(worker_id);
  if (worker == nullptr || images.empty()) return;
  const CacheState cache = s.CacheOf(*worker, turn.now());
  for (const std::string& id : images) {
    const RowPtr<CacheEntry> found = s.entries.Find(CacheEntry::Key(id, worker_id));
    if (!found->wanted && !EntryInUse(*found)) {
      UnwantEntry(turn, *found);
      continue;
    }
    const uint64_t needed = NeededBytes(*s.images.Find(id));
    const RoomVerdict room = MakeRoom(needed, cache);
    CacheEntry entry = *found;
    if (room.fits || room.could) {
      entry.skip = SkipReason::kNone;
      ForgetProgress(entry);
    } else {
      entry.error_message = NoRoomMessage(needed, room);
      if (entry.error_message == found->error_message) continue;
    }
    entry.updated_at = turn.now();
    PutEntry(turn, std::move(entry));
  }
}

// A row that is with a worker gets somewhere, or another one gets its place.
void Engine::TickOpen(Turn& turn) {
  State& s = *state_;
  const std::set<std::string> open = s.open_entries;
  for (const std::string& key : open) {
    const RowPtr<CacheEntry> entry = s.entries.Find(key);
    const RowPtr<Worker> worker = s.workers.Find(entry->worker_id);
    if (worker == nullptr || worker->status == WorkerStatus::kOffline) continue;
    const absl::Time since = std::max(entry->updated_at, worker->status_since);
    const bool begun = entry->status == CacheStatus::kBuilding;
    const absl::Duration limit = begun ? s.options.stall_deadline : s.options.pending_deadline;
    if (turn.now() - since < limit) continue;
    FailEntry(turn, *entry, "INTERNAL",
              "the worker " + std::string(begun ? "made no progress" : "did not begin") + " for " +
                  std::to_string(absl::ToInt64Seconds(limit)) +
                  " s; it is tried again: see the worker's log",
              /*retryable=*/true);
  }
  // What only time unpins.
  std::vector<std::string> short_of_room;
  for (const auto& [worker, images] : s.no_room_of_worker.all()) short_of_room.push_back(worker);
  s.room_changed.insert(short_of_room.begin(), short_of_room.end());
}

}  // namespace bunker::controller
