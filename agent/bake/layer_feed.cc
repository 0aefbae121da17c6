#include "agent/bake/layer_feed.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

constexpr uint64_t kWorthReading = 256 << 10;
// How long a Stop() may go unseen.
constexpr timespec kLookAgain = {.tv_sec = 0, .tv_nsec = 50'000'000};

void* MapPage(int fd, int protection) {
  return mmap(nullptr, sizeof(FeedPage), protection, MAP_SHARED, fd, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerFeed>> LayerFeed::Create() {
  UniqueFd fd(memfd_create("bake-feed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoError(errno, "memfd_create");
  if (ftruncate(fd.get(), sizeof(FeedPage)) != 0) return ErrnoError(errno, "sizing the feed");
  // A new file's zeros are the page's first state.
  void* page = MapPage(fd.get(), PROT_READ | PROT_WRITE);
  if (page == MAP_FAILED) return ErrnoError(errno, "mapping the feed");
  std::unique_ptr<LayerFeed> feed(new LayerFeed(std::move(fd), static_cast<FeedPage*>(page)));
  // This mapping stays writable, no other one will be; nor does the file shrink under it.
  constexpr int kSeals = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (fcntl(feed->fd(), F_ADD_SEALS, kSeals) != 0) return ErrnoError(errno, "sealing the feed");
  return feed;
}

LayerFeed::~LayerFeed() {
  munmap(page_, sizeof(FeedPage));
}

void LayerFeed::Announce(size_t layer, uint64_t bytes) {
  BUNKER_CHECK(layer < page_->available_bytes.size());
  page_->available_bytes[layer].store(bytes, std::memory_order_release);
  page_->changes.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, &page_->changes, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

absl::StatusOr<std::unique_ptr<FeedReader>> FeedReader::Map(UniqueFd fd) {
  void* page = MapPage(fd.get(), PROT_READ);
  if (page == MAP_FAILED) return ErrnoError(errno, "mapping the feed");
  return std::unique_ptr<FeedReader>(new FeedReader(static_cast<FeedPage*>(page)));
}

FeedReader::~FeedReader() {
  munmap(page_, sizeof(FeedPage));
}

uint64_t FeedReader::WaitBeyond(size_t layer, uint64_t offset,
                                const std::atomic<bool>& stop) const {
  for (;;) {
    const uint32_t seen = page_->changes.load(std::memory_order_acquire);
    const uint64_t available = page_->available_bytes[layer].load(std::memory_order_acquire);
    if (available > offset || stop.load(std::memory_order_relaxed)) return available;
    syscall(SYS_futex, &page_->changes, FUTEX_WAIT, seen, &kLookAgain, nullptr, 0);
  }
}

absl::StatusOr<size_t> FollowedLayerSource::ReadAt(uint64_t offset, char* buffer, size_t capacity) {
  if (offset >= size_bytes_) return 0;
  // Not for every sliver: each piece costs a round through all the stages.
  const uint64_t wanted = std::min<uint64_t>({capacity, kWorthReading, size_bytes_ - offset});
  const uint64_t available = feed_->WaitBeyond(layer_, offset + wanted - 1, stop_);
  if (available <= offset) {
    return ReasonError(absl::StatusCode::kCancelled, "CANCELLED", "the layer is not read on");
  }
  // The agent announces no more than it has written, so a short read is a file that was taken
  // away; the digest tells.
  return file_.ReadAt(
      offset, buffer,
      static_cast<size_t>(std::min<uint64_t>(capacity, std::min(available, size_bytes_) - offset)));
}

}  // namespace bunker::agent
