// The worker's baked images: images/<recipe>/{rootfs.ext4, recipe.json} and nothing half made.
//
// A bake writes into a private temporary folder of the same file system and is renamed into place
// once it is whole and synced, so that a reader sees an image or no image. The recipe digest is
// the key: two images with equal layers share one file.
//
// Thread-safe. Blocking: call it from pool threads. Paths handed out stay valid while pinned.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/cancel.h"

namespace bunker::agent {

struct BakedImage {
  std::string recipe_digest;   // 64 hex digits
  std::string rootfs_digest;   // fsverity-sha256:<64 hex>
  uint64_t apparent_bytes = 0;
  uint64_t allocated_bytes = 0;
  std::vector<std::string> blobs;  // digests it was baked from; kept while the image is
  absl::Time last_used = absl::InfinitePast();  // a VM began or ended with it; survives restarts
};

class ImageStore {
 public:
  // Opens `folder`, creating it, and removes what an interrupted bake left there. An image folder
  // whose recipe.json does not parse is removed as well: it can be baked again.
  static absl::StatusOr<std::unique_ptr<ImageStore>> Open(const std::string& folder);

  std::optional<BakedImage> Find(const std::string& recipe_digest) const;
  std::vector<BakedImage> List() const;
  // Where the file of a published image is.
  std::string RootfsPath(const std::string& recipe_digest) const;

  // The right to bake one recipe: at most one holder at a time, so that requests for the same
  // content share one bake. Released by the destructor, which also removes the temporary folder.
  class Lease {
   public:
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    // Where to write the file; its folder exists, is private and lies on the store's file system.
    std::string temporary_rootfs_path() const;

   private:
    friend class ImageStore;
    Lease(ImageStore* store, std::string recipe, std::string folder)
        : store_(store), recipe_(std::move(recipe)), folder_(std::move(folder)) {}
    ImageStore* const store_;
    const std::string recipe_;
    const std::string folder_;
  };

  // Waits until nobody else bakes `recipe_digest`; kCancelled where `cancel` fires first.
  absl::StatusOr<std::unique_ptr<Lease>> Acquire(const std::string& recipe_digest,
                                                 CancelToken& cancel);

  // Makes the leased file visible as `image`. REQUIRES: the file is synced and mode 0444.
  absl::Status Publish(Lease& lease, const BakedImage& image);

  // A pinned image is not removed. Pins nest, and die with the process: the reconciler pins again
  // what it adopts. Both count as a use.
  void Pin(const std::string& recipe_digest);
  void Unpin(const std::string& recipe_digest);
  bool IsPinned(const std::string& recipe_digest) const;

  // Takes the image out of the store at once (one rename, so that a loop may call it) and returns
  // the folder that is left to delete with DeleteRetired(); "" where the image is not there.
  // kFailedPrecondition while pinned.
  absl::StatusOr<std::string> Retire(const std::string& recipe_digest);
  void DeleteRetired(const std::string& folder);

 private:
  explicit ImageStore(std::string folder) : folder_(std::move(folder)) {}
  void Load();
  std::string RecipePath(const std::string& recipe_digest) const;
  void Release(const std::string& recipe);
  // REQUIRES: mutex_ is held.
  void TouchLocked(const std::string& recipe_digest);

  const std::string folder_;
  mutable std::mutex mutex_;
  std::condition_variable released_;
  // State below is protected by mutex_.
  std::map<std::string, BakedImage> images_;
  std::map<std::string, int> pins_;
  std::set<std::string> leased_;
  uint64_t next_temporary_ = 1;
};

}  // namespace bunker::agent
