// Internal to agent/pull: verified small documents (image configs, the manifests that indexes list)
// kept in memory by where they came from and their digest, so that a hundred pulls of one image ask
// for each of them once.
//
// What decides whether a pull may have an image, the manifest that its reference names, is never
// taken from here: the registry is asked each time.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "agent/pull/backoff.h"
#include "agent/pull/resolve.h"
#include "common/base/mutex.h"

namespace bunker::agent {

class DocumentCache {
 public:
  explicit DocumentCache(size_t max_bytes = 16u << 20) : max_bytes_(max_bytes) {}

  using Fetch = std::function<absl::StatusOr<Document>()>;

  // The document of `key`, or what `fetch` returns; simultaneous calls for one key make one of
  // them fetch and the others wait. Failures are not kept: whoever waited tries for itself.
  // CANCELLED where `stop` says so first.
  absl::StatusOr<Document> GetOrFetch(const std::string& key, const Fetch& fetch,
                                      const StopFn& stop);

 private:
  struct Entry {
    std::string key;
    Document document;
  };
  static size_t Cost(const std::string& key, const Document& document);
  void Keep(const std::string& key, const Document& document) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_bytes_;
  Mutex mutex_;
  CondVar done_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // the latest used first
  std::map<std::string, std::list<Entry>::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> in_flight_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace bunker::agent
