// Whether an image fits into a worker's cache, and what would have to go for it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "controller/model/image.h"
#include "controller/model/worker.h"

namespace bunker::controller {

// The bytes that images, blobs and VM disks may take in all; 0 where nothing is known.
uint64_t CacheLimitBytes(const Worker& worker);

// The disk that making `image` takes: its layers and the file, which until some worker has baked it
// is taken to be no smaller than they are. 0 until its ref is resolved.
uint64_t NeededBytes(const Image& image);

// Why a cached file stays. The first that applies, in this order.
enum class Pin {
  kNone,
  kUse,    // a bunker runs from it
  kGroup,  // a group wants it there
  kAge,    // lazy_pull brought it, and it was used a moment ago
};

struct CachedFile {
  std::string image_id;
  uint64_t bytes = 0;
  absl::Time last_used_at;
  Pin pin = Pin::kNone;
};

struct CacheState {
  uint64_t limit_bytes = 0;  // 0: unlimited
  uint64_t taken_bytes = 0;  // files, what is being made, and the disks of bunkers
  uint64_t going_bytes = 0;  // of these: files that the worker has been told to drop
  std::vector<CachedFile> files;
};

struct RoomVerdict {
  bool fits = false;   // now
  bool could = false;  // once what is going, and `evict`, has gone
  // Unpinned files to evict for it, least recently used first; empty unless `could`.
  std::vector<std::string> evict;
  // Where even that does not do: the files of groups that would have to go, least recently used
  // first, as many as are needed. Empty where not even they would do.
  std::vector<std::string> in_the_way;
  uint64_t free_bytes = 0;
};

// "17 MiB", rounded up, for messages.
std::string Mib(uint64_t bytes);

RoomVerdict MakeRoom(uint64_t needed_bytes, const CacheState& state);

}  // namespace bunker::controller
