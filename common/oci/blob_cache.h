// The seam between what fetches blobs and what keeps them: content-addressed, one download for
// any number of requests, resumable.
//
// Thread-safe: implementations of BlobCache. A BlobWriter belongs to the thread that was given it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/oci/digest.h"

namespace bunker::oci {

// A verified blob on disk. It is not removed while an object of this type lives.
class Blob {
 public:
  virtual ~Blob() = default;
  virtual const std::string& path() const = 0;  // readable by the owner of the store alone
  virtual const Digest& digest() const = 0;
  virtual uint64_t size_bytes() const = 0;
};

// A blob in the making.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // Bytes that are there already, from an earlier attempt or this one: continue from here.
  virtual uint64_t offset() const = 0;
  // Forgets them: the next Write() is the first.
  virtual absl::Status Restart() = 0;
  // Appends. DISK_FULL, or DIGEST_MISMATCH where the blob would become larger than declared.
  virtual absl::Status Write(std::string_view data) = 0;
  // Whether a request for the same blob from another place waits and this download is slow: the
  // fetch should then end soon, with any error; it is called again should the other not succeed.
  virtual bool ShouldYield() const { return false; }
};

class BlobCache {
 public:
  virtual ~BlobCache() = default;

  // Brings the writer from its offset to the declared size. Called once more, from offset 0,
  // where bytes left by an earlier attempt turn out to be wrong.
  using Fetch = std::function<absl::Status(BlobWriter&)>;

  // The blob, from disk or by `fetch`. Requests for one digest share one download; where it
  // fails, those of the same `origin` (registry, repository and identity) share the error and the
  // others try for themselves. Nor does a slow place hold up those that ask another: they take
  // over and go on from where it came to. `stop` is polled and ends the wait with CANCELLED.
  // Errors: what `fetch` returned; DIGEST_MISMATCH (the content is not the digest's, or the
  // digest's content is not `size_bytes` long); DISK_FULL.
  virtual absl::StatusOr<std::shared_ptr<const Blob>> GetOrFetch(
      const Digest& digest, uint64_t size_bytes, const std::string& origin, const Fetch& fetch,
      const std::function<bool()>& stop) = 0;
};

}  // namespace bunker::oci
