#include "controller/policy/cache_room.h"

#include <algorithm>
#include <utility>

namespace bunker::controller {
namespace {

// The least recently used files of `pin`, as many as it takes for `missing` bytes; subtracts them.
std::vector<std::string> Oldest(const std::vector<CachedFile>& files, Pin pin, uint64_t& missing) {
  std::vector<const CachedFile*> candidates;
  for (const CachedFile& file : files) {
    if (file.pin == pin && file.bytes > 0) candidates.push_back(&file);
  }
  std::sort(candidates.begin(), candidates.end(), [](const CachedFile* a, const CachedFile* b) {
    return std::pair(a->last_used_at, a->image_id) < std::pair(b->last_used_at, b->image_id);
  });
  std::vector<std::string> chosen;
  for (const CachedFile* file : candidates) {
    if (missing == 0) break;
    chosen.push_back(file->image_id);
    missing -= std::min(missing, file->bytes);
  }
  return chosen;
}

}  // namespace

uint64_t CacheLimitBytes(const Worker& worker) {
  if (worker.disk.high_bytes > 0) return worker.disk.high_bytes;
  return worker.facts.capacity.disk_mb << 20;
}

uint64_t NeededBytes(const Image& image) {
  const uint64_t layers_bytes = image.resolved ? image.resolved->layers_bytes : 0;
  return layers_bytes + (image.allocated_bytes > 0 ? image.allocated_bytes : layers_bytes);
}

std::string Mib(uint64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

RoomVerdict MakeRoom(uint64_t needed_bytes, const CacheState& state) {
  RoomVerdict verdict;
  if (state.limit_bytes == 0) {
    verdict.fits = verdict.could = true;
    return verdict;
  }
  verdict.free_bytes =
      state.limit_bytes > state.taken_bytes ? state.limit_bytes - state.taken_bytes : 0;
  verdict.fits = verdict.could = needed_bytes <= verdict.free_bytes;
  if (verdict.fits) return verdict;
  const uint64_t total = state.taken_bytes - std::min(state.taken_bytes, state.going_bytes);
  uint64_t missing =
      total + needed_bytes > state.limit_bytes ? total + needed_bytes - state.limit_bytes : 0;
  std::vector<std::string> evict = Oldest(state.files, Pin::kNone, missing);
  verdict.could = missing == 0;
  if (verdict.could) {
    verdict.evict = std::move(evict);
    return verdict;
  }
  std::vector<std::string> in_the_way = Oldest(state.files, Pin::kGroup, missing);
  if (missing == 0) verdict.in_the_way = std::move(in_the_way);
  return verdict;
}

}  // namespace bunker::controller
