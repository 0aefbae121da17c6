// Fixed-size buffers that travel between the stages of a bake, and the bounded queue they travel
// through. A pool hands out a bounded number of them: that is the memory bound of a stage.
//
// Thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/mutex.h"

namespace bunker::agent {

inline constexpr size_t kStageChunkBytes = 512 << 10;

// Who sleeps is woken for a few chunks at once, not for each: to wake a thread costs the time of
// hashing a good part of one. A pool must be larger than what its users may hold while they wait,
// plus twice this, or they would wait for each other.
inline constexpr size_t kWakeChunks = 3;

struct Chunk {
  Chunk() : data(new char[kStageChunkBytes]) {}
  std::string_view view() const { return {data.get(), size}; }
  std::unique_ptr<char[]> data;
  size_t size = 0;
};
using ChunkPtr = std::shared_ptr<Chunk>;

// Buffers that one stage is done with, for the next: left to the heap, they would stay in the arena
// of whichever thread made them. Thread-safe.
class ChunkReserve {
 public:
  std::unique_ptr<Chunk> Take() {
    MutexLock lock(mutex_);
    if (free_.empty()) return std::make_unique<Chunk>();
    std::unique_ptr<Chunk> chunk = std::move(free_.back());
    free_.pop_back();
    return chunk;
  }
  void Give(std::unique_ptr<Chunk> chunk) {
    MutexLock lock(mutex_);
    if (!closed_) free_.push_back(std::move(chunk));
  }
  // Nothing is kept from now on.
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    free_.clear();
  }

 private:
  Mutex mutex_;
  bool closed_ = false;
  std::vector<std::unique_ptr<Chunk>> free_;
};

class ChunkPool : public std::enable_shared_from_this<ChunkPool> {
 public:
  ChunkPool(int limit, std::shared_ptr<ChunkReserve> reserve)
      : limit_(limit), reserve_(std::move(reserve)) {}
  ~ChunkPool() {
    for (std::unique_ptr<Chunk>& chunk : free_) reserve_->Give(std::move(chunk));
  }

  // Waits for a free chunk; null once closed. The chunk comes back when its last owner lets go.
  ChunkPtr Acquire() {
    MutexLock lock(mutex_);
    while (!closed_ && free_.empty() && made_ == limit_) changed_.wait(lock.native());
    if (closed_) return nullptr;
    std::unique_ptr<Chunk> chunk;
    if (free_.empty()) {
      chunk = reserve_->Take();
      ++made_;
    } else {
      chunk = std::move(free_.back());
      free_.pop_back();
    }
    chunk->size = 0;
    return ChunkPtr(chunk.release(), [pool = shared_from_this()](Chunk* c) { pool->Return(c); });
  }

  // Ends every wait, now and later.
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  void Return(Chunk* chunk) {
    MutexLock lock(mutex_);
    free_.emplace_back(chunk);
    if (free_.size() + static_cast<size_t>(limit_ - made_) >= kWakeChunks) changed_.notify_one();
  }

  const int limit_;
  const std::shared_ptr<ChunkReserve> reserve_;
  Mutex mutex_;
  CondVar changed_;
  bool closed_ = false;
  int made_ = 0;
  std::vector<std::unique_ptr<Chunk>> free_;
};

// First in, first out. Pop() waits; after Close() it drains what is there and then returns null.
// It holds as much as the pools allow: the pools are the bound.
class ChunkQueue {
 public:
  void Push(ChunkPtr chunk) {
    MutexLock lock(mutex_);
    if (closed_) return;
    items_.push_back(std::move(chunk));
    if (items_.size() >= kWakeChunks) changed_.notify_one();
  }

  ChunkPtr Pop() {
    MutexLock lock(mutex_);
    while (items_.empty() && !closed_) changed_.wait(lock.native());
    if (items_.empty()) return nullptr;
    ChunkPtr chunk = std::move(items_.front());
    items_.pop_front();
    return chunk;
  }

  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  // Close(), and what waits is dropped.
  void Abandon() {
    std::deque<ChunkPtr> dropped;
    MutexLock lock(mutex_);
    closed_ = true;
    dropped.swap(items_);
    changed_.notify_all();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool closed_ = false;
  std::deque<ChunkPtr> items_;
};

}  // namespace bunker::agent
