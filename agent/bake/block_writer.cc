#include "agent/bake/block_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "agent/bake/bake_error.h"
#include "agent/bake/hash_worker.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

namespace {

absl::Status WriteError(int error_number) {
  if (error_number == EFBIG) error_number = ENOSPC;
  return ErrnoError(error_number, "writing the image file; free space on the worker's disk");
}

}  // namespace

BlockWriter::BlockWriter(int fd, uint64_t cap_bytes, int tree_fd)
    : fd_(fd), cap_bytes_(cap_bytes), tree_(tree_fd, cap_bytes) {
  for (int i = 0; i < kBuffers; ++i) {
    storage_.emplace_back(static_cast<char*>(std::aligned_alloc(kBlockBytes, kBufferBytes)),
                          &std::free);
    BUNKER_CHECK(storage_.back() != nullptr);
    free_.push_back(storage_.back().get());
  }
  // Past the page cache: the bytes are read next by a guest, much later, if at all. Where the file
  // system refuses, the first write falls back.
  const int flags = fcntl(fd_, F_GETFL);
  direct_ = flags >= 0 && fcntl(fd_, F_SETFL, flags | O_DIRECT) == 0;
  hash_.thread = std::thread([this] { Run(&hash_, &write_, &BlockWriter::HashBuffer); });
  write_.thread = std::thread([this] { Run(&write_, nullptr, &BlockWriter::WriteBuffer); });
}

BlockWriter::~BlockWriter() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    hash_.filled.notify_one();
    write_.filled.notify_one();
  }
  hash_.thread.join();
  write_.thread.join();
}

void BlockWriter::Run(Stage* stage, Stage* next, absl::Status (BlockWriter::*work)(const Buffer&)) {
  MutexLock lock(mutex_);
  for (;;) {
    while (stage->pending.empty() && !stop_) stage->filled.wait(lock.native());
    if (stop_) return;
    const Buffer buffer = stage->pending.front();
    stage->pending.pop_front();
    const bool skip = discard_ || !status_.ok();
    lock.native().unlock();
    const absl::Status done = skip ? absl::OkStatus() : (this->*work)(buffer);
    const double cpu = ThreadCpuSeconds();
    lock.native().lock();
    stage->cpu_seconds = cpu;
    if (status_.ok()) status_ = done;
    if (next != nullptr) {
      next->pending.push_back(buffer);
      next->filled.notify_one();
    } else {
      free_.push_back(buffer.data);
      --in_flight_;
      freed_.notify_one();
    }
  }
}

absl::Status BlockWriter::WriteBytes(const char* data, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t count = pwrite(fd_, data, size, static_cast<off_t>(offset));
    if (count > 0) {
      data += count;
      size -= static_cast<size_t>(count);
      offset += static_cast<uint64_t>(count);
      // A short direct write leaves an unaligned rest.
      if (size > 0 && direct_ && offset % kBlockBytes != 0)
        errno = EINVAL;
      else
        continue;
    } else if (count == 0) {
      return WriteError(ENOSPC);
    } else if (errno == EINTR) {
      continue;
    }
    if (errno != EINVAL || !direct_) return WriteError(errno);
    direct_ = false;
    const int flags = fcntl(fd_, F_GETFL);
    if (flags < 0 || fcntl(fd_, F_SETFL, flags & ~O_DIRECT) != 0) return WriteError(errno);
  }
  return absl::OkStatus();
}

absl::Status BlockWriter::HashBuffer(const Buffer& buffer) {
  return tree_.Set(buffer.block, std::string_view(buffer.data, buffer.size));
}

absl::Status BlockWriter::WriteBuffer(const Buffer& buffer) {
  const uint64_t offset = buffer.block * kBlockBytes;
  RETURN_IF_ERROR(WriteBytes(buffer.data, buffer.size, offset));
  if (!direct_) {
    // Start the write-back now, so that the final sync has little left to do.
    (void)sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(buffer.size),
                          SYNC_FILE_RANGE_WRITE);
  }
  return absl::OkStatus();
}

absl::Status BlockWriter::Submit() {
  if (current_.size == 0) return absl::OkStatus();
  MutexLock lock(mutex_);
  hash_.pending.push_back(current_);
  ++in_flight_;
  current_ = Buffer();
  hash_.filled.notify_one();
  return status_;
}

// The file can't be finished any more, whatever comes: holes count, too.
absl::Status BlockWriter::GiveUp() {
  {
    MutexLock lock(mutex_);
    discard_ = true;
    if (current_.data != nullptr) free_.push_back(current_.data);
    current_ = Buffer();
    while (in_flight_ > 0) freed_.wait(lock.native());
    RETURN_IF_ERROR(status_);
  }
  return ftruncate(fd_, 0) == 0 ? absl::OkStatus() : WriteError(errno);
}

void BlockWriter::SkipTo(uint64_t block) {
  BUNKER_CHECK(open_bytes_ == 0 && block >= position_);
  if (block == position_) return;
  (void)Submit();  // an error stays for the next call that can return it
  position_ = block;
}

absl::Status BlockWriter::Append(std::string_view data) {
  while (!data.empty()) {
    size_t count = 0;
    if (!over_cap_ && position_ * kBlockBytes >= cap_bytes_) {
      over_cap_ = true;
      RETURN_IF_ERROR(GiveUp());
    }
    if (over_cap_) {
      count = data.size();
    } else {
      if (current_.data == nullptr) {
        MutexLock lock(mutex_);
        while (free_.empty()) freed_.wait(lock.native());
        RETURN_IF_ERROR(status_);
        current_ = Buffer{free_.back(), position_, 0};
        free_.pop_back();
      }
      count = std::min(data.size(), kBufferBytes - current_.size);
      // Stop at the cap, which may be anywhere.
      count = static_cast<size_t>(
          std::min<uint64_t>(count, cap_bytes_ - (position_ * kBlockBytes + open_bytes_)));
      std::memcpy(current_.data + current_.size, data.data(), count);
      current_.size += count;
    }
    data.remove_prefix(count);
    const uint64_t bytes = open_bytes_ + count;
    position_ += bytes / kBlockBytes;
    open_bytes_ = bytes % kBlockBytes;
    if (current_.size == kBufferBytes) RETURN_IF_ERROR(Submit());
  }
  return absl::OkStatus();
}

absl::Status BlockWriter::PadBlock() {
  static constexpr char kZeros[kBlockBytes] = {};
  if (open_bytes_ == 0) return absl::OkStatus();
  return Append(std::string_view(kZeros, kBlockBytes - open_bytes_));
}

absl::Status BlockWriter::Drain() {
  BUNKER_CHECK(open_bytes_ == 0);
  RETURN_IF_ERROR(Submit());
  MutexLock lock(mutex_);
  while (in_flight_ > 0) freed_.wait(lock.native());
  return status_;
}

absl::Status BlockWriter::WriteAt(uint64_t block, std::string_view data) {
  if (over_cap_ || (block * kBlockBytes + data.size()) > cap_bytes_) {
    over_cap_ = true;
    return absl::OkStatus();
  }
  // Copied, for direct writes want an aligned address.
  char* aligned = storage_.front().get();
  while (!data.empty()) {
    const size_t count = std::min(data.size(), kBufferBytes);
    std::memcpy(aligned, data.data(), count);
    RETURN_IF_ERROR(HashBuffer(Buffer{aligned, block, count}));
    RETURN_IF_ERROR(WriteBuffer(Buffer{aligned, block, count}));
    block += count / kBlockBytes;
    data.remove_prefix(count);
  }
  return absl::OkStatus();
}

absl::Status BlockWriter::Punch(uint64_t block, uint64_t count) {
  // What was only counted has nothing to free.
  const uint64_t end = std::min(block + count, cap_bytes_ / kBlockBytes);
  if (block >= end) return absl::OkStatus();
  count = end - block;
  RETURN_IF_ERROR(tree_.SetHole(block, count));
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(block * kBlockBytes),
                static_cast<off_t>(count * kBlockBytes)) == 0) {
    return absl::OkStatus();
  }
  if (errno != EOPNOTSUPP) return WriteError(errno);
  char* zeros = storage_.front().get();
  std::memset(zeros, 0, kBufferBytes);
  while (count > 0) {
    const uint64_t piece = std::min<uint64_t>(count, kBufferBytes / kBlockBytes);
    RETURN_IF_ERROR(WriteBytes(zeros, piece * kBlockBytes, block * kBlockBytes));
    block += piece;
    count -= piece;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> BlockWriter::Finish(uint64_t size_blocks) {
  RETURN_IF_ERROR(Drain());
  const uint64_t size_bytes = size_blocks * kBlockBytes;
  if (ftruncate(fd_, static_cast<off_t>(size_bytes)) != 0) return WriteError(errno);
  if (fsync(fd_) != 0) return WriteError(errno);
  return tree_.Finish(size_bytes);
}

}  // namespace bunker::agent
