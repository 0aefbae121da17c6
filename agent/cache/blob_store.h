// The worker's blobs as they came from registries: blobs/sha256/<hex>, each verified before it
// gets its name, and blobs/partial/<hex> for downloads that can be resumed.
//
// A blob is written to partial/, hashed on the way, synced, renamed and its folder synced: after a
// kill at any point there is the whole blob, a partial one that the next attempt continues, or
// nothing. A partial's bytes are hashed again before they are built upon.
//
// Thread-safe. Blocking: call it from pool threads. One process at a time holds a folder (lock).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/base/unique_fd.h"
#include "common/oci/blob_cache.h"

namespace bunker::agent {

struct BlobInfo {
  oci::Digest digest;
  uint64_t size_bytes = 0;
  absl::Time last_used;  // to the precision of the file system; survives restarts
  uint32_t pins = 0;
};

class BlobStore final : public oci::BlobCache {
 public:
  // Opens `folder`, creating it (0700), and removes what does not belong there and partial blobs
  // older than `partial_life`. kFailedPrecondition where another process holds it.
  // A request that has waited for `patience` while another place's download brought less than
  // 1 MiB/s takes over, and after a fifth of it where nothing came at all.
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(
      const std::string& folder, absl::Duration partial_life = absl::Hours(24),
      absl::Duration patience = absl::Seconds(10));

  ~BlobStore() override;
  BlobStore(const BlobStore&) = delete;
  BlobStore& operator=(const BlobStore&) = delete;

  absl::StatusOr<std::shared_ptr<const oci::Blob>> GetOrFetch(
      const oci::Digest& digest, uint64_t size_bytes, const std::string& origin,
      const Fetch& fetch, const std::function<bool()>& stop) override;

  // Reads along while a blob is being fetched.
  class Follower;
  // `on_bytes` is told how many bytes of the follower's file may be read: at once, and from then
  // on as they come, on the fetching thread and under a lock (it must be short and must not call
  // back). Nothing is pinned and no fetch is begun.
  //
  // What is told before the fetch has ended is not verified, so a follower hears of fetches from
  // its own `origin` alone (as GetOrFetch() is given it); what another place sends is told once it
  // is verified. A follower whose bytes were taken back is stale: see Follower.
  absl::StatusOr<std::unique_ptr<Follower>> Follow(const oci::Digest& digest,
                                                   const std::string& origin,
                                                   std::function<void(uint64_t)> on_bytes);

  // Forgets what has come of a blob that is not wanted any more. One that is being fetched or
  // followed stays.
  void DropPartial(const oci::Digest& digest);
  // The same for all partial blobs that have not grown for `unused`.
  void DropPartials(absl::Duration unused);

  // Pins and returns the blob; nullptr where it is not there.
  std::shared_ptr<const oci::Blob> Find(const oci::Digest& digest);

  // What new blobs may take of the disk, beside what the file system has free: the operator's
  // bound. A fetch that does not fit is DISK_FULL before it begins. Unbounded at first.
  void SetBudget(uint64_t free_bytes) { budget_bytes_ = free_bytes; }

  // Sorted by digest.
  std::vector<BlobInfo> List() const;
  uint64_t UsedBytes() const;  // of whole blobs

  // kFailedPrecondition while pinned; OK where it is not there.
  absl::Status Remove(const oci::Digest& digest);
  // For a blob found to be damaged: removed even while pinned, so that the next request fetches
  // it anew. Readers that have it open keep what they have.
  absl::Status Discard(const oci::Digest& digest);

 private:
  class PinnedBlob;
  class Writer;
  struct Entry {
    uint64_t size_bytes = 0;
    absl::Time last_used;
    uint32_t pins = 0;
    // Set apart by Discard(): pins of an earlier life must not count for a later one.
    uint64_t generation = 0;
  };
  struct Flight {
    std::string origin;
    std::atomic<bool> yield{false};  // set under the mutex, read by the fetching thread
    bool done = false;
    uint64_t bytes = 0;  // there so far
    absl::Status result;

    bool Yielded() const { return done && yield && !result.ok(); }
  };

  struct Yielder {
    std::string origin;
    absl::Duration until;  // monotonic
  };

  // Either the blob is there, or the caller is the one who fetches it.
  struct Claim {
    std::shared_ptr<const oci::Blob> blob;
    std::shared_ptr<Flight> flight;
  };

  BlobStore(std::string folder, absl::Duration patience)
      : folder_(std::move(folder)), patience_(patience) {}
  absl::Status Recover(absl::Duration partial_life);
  absl::Status RecoverBlobs();
  absl::Status RecoverPartials(absl::Duration partial_life);
  std::string PathOf(const oci::Digest& digest) const;
  std::string PartialPathOf(const oci::Digest& digest) const;
  void DropPartialLocked(const oci::Digest& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex);
  absl::StatusOr<Claim> Join(const oci::Digest& digest, uint64_t size_bytes,
                             const std::string& origin, const std::function<bool()>& stop);
  // Until `other` is done; asks it to yield where it is slow and of another place. CANCELLED.
  absl::Status WaitFor(Flight& other, const std::string& origin, const std::function<bool()>& stop,
                       MutexLock& lock) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex);
  // Whether those of `origin` have just yielded this blob and nobody has taken over yet.
  bool LetsOthersGo(const oci::Digest& digest, const std::string& origin)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex);
  absl::Status CheckRoom(const oci::Digest& digest, uint64_t missing_bytes) const;
  absl::Status RunFetch(const oci::Digest& digest, uint64_t size_bytes, const Fetch& fetch,
                        const Flight& flight);
  // One attempt; `*resumed` tells whether it built on bytes that were there before.
  absl::Status FetchOnce(const oci::Digest& digest, uint64_t size_bytes, const Fetch& fetch,
                         const Flight& flight, bool* resumed);
  absl::Status Publish(Writer& writer, const oci::Digest& digest, uint64_t size_bytes);
  std::shared_ptr<const oci::Blob> PinLocked(const oci::Digest& digest)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex);

  // Shared with the pins handed out, which may outlive the store.
  struct State {
    // For those who read along: the file into which a fetch writes, what it has brought so far,
    // and that it is verified.
    void Begin(const oci::Digest& digest, int fd);
    void Tell(const oci::Digest& digest, const std::string& origin, uint64_t bytes);
    void Complete(const oci::Digest& digest, const std::string& path, uint64_t bytes)
        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

    Mutex mutex;
    CondVar changed;
    std::map<oci::Digest, Entry> blobs ABSL_GUARDED_BY(mutex);
    std::map<oci::Digest, std::shared_ptr<Flight>> flights ABSL_GUARDED_BY(mutex);
    // Who has just yielded and lets others go first, for a moment.
    std::map<oci::Digest, Yielder> yielded ABSL_GUARDED_BY(mutex);
    std::multimap<oci::Digest, Follower*> followers ABSL_GUARDED_BY(mutex);
    uint64_t next_generation ABSL_GUARDED_BY(mutex) = 1;
  };

  const std::string folder_;
  const absl::Duration patience_;
  std::atomic<uint64_t> budget_bytes_{UINT64_MAX};
  UniqueFd lock_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

class BlobStore::Follower {
 public:
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // The file that becomes the blob, open for reading.
  int fd() const { return fd_.get(); }
  // What was told is no longer so: a fetch had to start over, or went into another file. Nothing
  // more is told, and whatever was made of the bytes is void: read the blob by its path. Once a
  // fetch has ended well and its follower is not stale, the file is the blob. Thread-safe.
  bool stale() const { return stale_; }

 private:
  friend class BlobStore;
  Follower(BlobStore& store, oci::Digest digest, std::string origin, UniqueFd fd,
           std::function<void(uint64_t)> on_bytes)
      : store_(store),
        state_(store.state_),
        digest_(std::move(digest)),
        origin_(std::move(origin)),
        fd_(std::move(fd)),
        on_bytes_(std::move(on_bytes)) {}
  void Tell(uint64_t bytes);

  BlobStore& store_;
  const std::shared_ptr<State> state_;
  const oci::Digest digest_;
  const std::string origin_;
  const UniqueFd fd_;
  const std::function<void(uint64_t)> on_bytes_;
  uint64_t told_ = 0;  // protected by the state's mutex
  std::atomic<bool> stale_{false};
};

}  // namespace bunker::agent
