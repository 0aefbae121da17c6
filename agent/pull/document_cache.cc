#include "agent/pull/document_cache.h"

#include <chrono>

#include "common/base/reason.h"

namespace bunker::agent {
namespace {
constexpr std::chrono::milliseconds kStopPoll{100};
}  // namespace

absl::StatusOr<Document> DocumentCache::GetOrFetch(const std::string& key, const Fetch& fetch,
                                                   const StopFn& stop) {
  {
    MutexLock lock(mutex_);
    for (;;) {
      if (const auto it = by_key_.find(key); it != by_key_.end()) {
        entries_.splice(entries_.begin(), entries_, it->second);
        return it->second->document;
      }
      if (in_flight_.insert(key).second) break;
      done_.wait_for(lock.native(), kStopPoll);
      if (stop && stop()) {
        return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                           "the pull was cancelled because its result is no longer wanted");
      }
    }
  }
  absl::StatusOr<Document> document = fetch();
  MutexLock lock(mutex_);
  in_flight_.erase(key);
  done_.notify_all();
  if (document.ok()) Keep(key, *document);
  return document;
}

size_t DocumentCache::Cost(const std::string& key, const Document& document) {
  constexpr size_t kNodes = 256;  // of the list and the map; an empty body is not free
  return document.body.size() + 2 * key.size() + kNodes;
}

void DocumentCache::Keep(const std::string& key, const Document& document) {
  if (Cost(key, document) > max_bytes_) return;
  bytes_ += Cost(key, document);
  entries_.push_front({key, document});
  by_key_[key] = entries_.begin();
  while (bytes_ > max_bytes_) {
    bytes_ -= Cost(entries_.back().key, entries_.back().document);
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

}  // namespace bunker::agent
