// Writes the image file: sequentially and in large pieces as long as data flows, at random where
// the last few blocks of metadata need it. A thread of its own hashes (fs-verity) and writes.
//
// Owned and used by one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/data_layout.h"
#include "agent/bake/verity_tree.h"
#include "common/base/mutex.h"

namespace bunker::agent {

class BlockWriter {
 public:
  // `fd` stays the caller's. Nothing is written at or past `cap_bytes`: as soon as data reaches it,
  // the disk gets back what was written, and from there on the writer only counts, so that the
  // caller learns how large the file would have been. In `tree_fd` the fs-verity tree keeps what
  // memory should not hold (verity_tree.h); it may be -1.
  BlockWriter(int fd, uint64_t cap_bytes, int tree_fd);
  ~BlockWriter();

  // The block at which the next Append() starts; whole blocks only have been appended.
  uint64_t position() const { return position_; }
  bool over_cap() const { return over_cap_; }

  // Leaves a hole up to `block`, which is not before position().
  void SkipTo(uint64_t block);
  // Appends; the last block stays open until it is full or padded.
  absl::Status Append(std::string_view data);
  // Fills the open block with zeros.
  absl::Status PadBlock();

  // Waits until all that was appended is written.
  absl::Status Drain();
  // After Drain() only. `data` is whole blocks.
  absl::Status WriteAt(uint64_t block, std::string_view data);
  // After Drain() only. Frees the blocks on disk; they read as zeros.
  absl::Status Punch(uint64_t block, uint64_t count);

  // Sets the size, syncs, and returns the fs-verity digest. Call once, last.
  absl::StatusOr<std::string> Finish(uint64_t size_blocks);
  const VerityTree& tree() const { return tree_; }

  // After Drain() or Finish().
  double cpu_seconds() const { return hash_.cpu_seconds + write_.cpu_seconds; }

 private:
  struct Buffer {
    char* data = nullptr;
    uint64_t block = 0;
    size_t size = 0;
  };
  // A thread and the buffers that wait for it: one hashes, the next writes, so that the disk's time
  // is not added to the CPU's.
  struct Stage {
    std::deque<Buffer> pending;
    double cpu_seconds = 0;
    CondVar filled;
    std::thread thread;
  };
  static constexpr size_t kBufferBytes = 2 << 20;
  static constexpr int kBuffers = 6;

  // `work` on each buffer, which then goes to `next`, or is free.
  void Run(Stage* stage, Stage* next, absl::Status (BlockWriter::*work)(const Buffer&));
  absl::Status Submit();
  absl::Status GiveUp();
  absl::Status HashBuffer(const Buffer& buffer);
  absl::Status WriteBuffer(const Buffer& buffer);
  absl::Status WriteBytes(const char* data, size_t size, uint64_t offset);

  const int fd_;
  const uint64_t cap_bytes_;
  uint64_t position_ = 0;
  size_t open_bytes_ = 0;  // of the open block
  bool over_cap_ = false;
  bool direct_ = false;
  Buffer current_;
  std::vector<std::unique_ptr<char, void (*)(void*)>> storage_;
  VerityTree tree_;

  Mutex mutex_;
  CondVar freed_;
  std::vector<char*> free_;
  int in_flight_ = 0;     // buffers submitted and not free again
  bool discard_ = false;  // what is in flight is not wanted any more
  bool stop_ = false;
  absl::Status status_;
  Stage hash_;
  Stage write_;
};

}  // namespace bunker::agent
