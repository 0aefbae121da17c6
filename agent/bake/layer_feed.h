// How far each layer's blob has come while it is still being pulled: a page of shared memory that
// the agent writes and its bake child reads. The child bakes what is there and waits for the rest,
// so that an image is ready soon after its last byte.
//
// The child can map the page for reading only: whatever becomes of it, it changes nothing here.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "agent/bake/bake_child.h"
#include "agent/bake/layer_source.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

// The page's layout. Futex waiters sleep on `changes`.
struct FeedPage {
  std::atomic<uint32_t> changes;
  std::array<std::atomic<uint64_t>, kMaxLayers> available_bytes;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// The agent's end. Thread-safe.
class LayerFeed {
 public:
  // All layers start with nothing available.
  static absl::StatusOr<std::unique_ptr<LayerFeed>> Create();
  ~LayerFeed();
  LayerFeed(const LayerFeed&) = delete;
  LayerFeed& operator=(const LayerFeed&) = delete;

  // The first `bytes` of the layer's file may be read.
  void Announce(size_t layer, uint64_t bytes);

  // Every blob is whole and verified, and has been announced as such: from here on the bake waits
  // for nothing, and its deadline runs.
  void SetComplete() { complete_.store(true, std::memory_order_release); }
  bool complete() const { return complete_.load(std::memory_order_acquire); }

  int fd() const { return fd_.get(); }

 private:
  LayerFeed(UniqueFd fd, FeedPage* page) : fd_(std::move(fd)), page_(page) {}

  const UniqueFd fd_;
  FeedPage* const page_;
  std::atomic<bool> complete_{false};
};

// The child's end. Thread-safe; must outlive the sources made from it.
class FeedReader {
 public:
  static absl::StatusOr<std::unique_ptr<FeedReader>> Map(UniqueFd fd);
  ~FeedReader();
  FeedReader(const FeedReader&) = delete;
  FeedReader& operator=(const FeedReader&) = delete;

  // Waits until the layer has more than `offset` bytes and returns how many it has; returns early,
  // with less, where `stop` becomes true.
  uint64_t WaitBeyond(size_t layer, uint64_t offset, const std::atomic<bool>& stop) const;

 private:
  explicit FeedReader(FeedPage* page) : page_(page) {}
  FeedPage* const page_;
};

// A blob in the making: reads wait for the bytes they are about.
class FollowedLayerSource : public LayerSource {
 public:
  // `size_bytes` is what the manifest declares. `feed` must outlive the source.
  FollowedLayerSource(UniqueFd fd, const FeedReader* feed, size_t layer, uint64_t size_bytes)
      : file_(std::move(fd)), feed_(feed), layer_(layer), size_bytes_(size_bytes) {}

  absl::StatusOr<size_t> ReadAt(uint64_t offset, char* buffer, size_t capacity) override;
  void Stop() override { stop_.store(true, std::memory_order_relaxed); }

 private:
  FdLayerSource file_;
  const FeedReader* const feed_;
  const size_t layer_;
  const uint64_t size_bytes_;
  std::atomic<bool> stop_{false};
};

}  // namespace bunker::agent
