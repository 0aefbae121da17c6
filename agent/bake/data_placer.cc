#include "agent/bake/data_placer.h"

#include <algorithm>

#include "common/base/status_macros.h"

namespace bunker::agent {

void DataPlacer::BeginLayer() {
  stream_blocks_ = 0;
  slack_ = std::max(slack_, (kChunkBlocks - 1) * kBlocksPerSlack);
}

void DataPlacer::BeginFile(bool written) {
  placed_ = false;
  written_ = written;
  file_blocks_ = 0;
  counted_until_ = 0;
  next_offset_ = 0;
  block_open_ = false;
  runs_.clear();
}

void DataPlacer::Align() {
  const uint64_t at = std::max(writer_->position(), kFirstDataBlock);
  // Wraps where the stream is behind, as it should: chunks are a power of two.
  static_assert((kChunkBlocks & (kChunkBlocks - 1)) == 0);
  const uint64_t hole = (stream_blocks_ - at) % kChunkBlocks;
  const bool paid = hole * kBlocksPerSlack <= slack_;
  if (paid) slack_ -= hole * kBlocksPerSlack;
  writer_->SkipTo(paid ? at + hole : at);
}

void DataPlacer::Count(uint64_t offset, size_t size) {
  const uint64_t end = BlocksFor(offset + size);
  const uint64_t start = std::max(offset / kBlockBytes, counted_until_);
  if (end <= start) return;
  file_blocks_ += end - start;
  counted_until_ = end;
}

absl::Status DataPlacer::OpenBlock(uint64_t logical) {
  if (!placed_) Align();
  placed_ = true;
  const uint64_t physical = writer_->position();
  if (!runs_.empty() && runs_.back().logical + runs_.back().blocks == logical &&
      runs_.back().physical + runs_.back().blocks == physical) {
    ++runs_.back().blocks;
  } else {
    runs_.push_back(DataRun{logical, physical, 1});
  }
  block_open_ = true;
  return absl::OkStatus();
}

absl::Status DataPlacer::CloseBlock() {
  block_open_ = false;
  return writer_->PadBlock();
}

absl::Status DataPlacer::Data(uint64_t offset, std::string_view data) {
  if (data.empty()) return absl::OkStatus();
  Count(offset, data.size());
  if (!written_) return absl::OkStatus();
  if (offset < next_offset_) return absl::InvalidArgumentError("its sparse map goes backwards");
  static constexpr char kZeros[kBlockBytes] = {};
  const uint64_t gap = offset - next_offset_;
  if (gap > 0) {
    const uint64_t in_block = next_offset_ % kBlockBytes;
    if (block_open_ && gap < kBlockBytes - in_block) {
      RETURN_IF_ERROR(writer_->Append(std::string_view(kZeros, gap)));
    } else {
      if (block_open_) RETURN_IF_ERROR(CloseBlock());
      if (offset % kBlockBytes != 0) {
        RETURN_IF_ERROR(OpenBlock(offset / kBlockBytes));
        RETURN_IF_ERROR(writer_->Append(std::string_view(kZeros, offset % kBlockBytes)));
      }
    }
    next_offset_ = offset;
  }
  while (!data.empty()) {
    if (next_offset_ % kBlockBytes == 0) {
      block_open_ = false;
      RETURN_IF_ERROR(OpenBlock(next_offset_ / kBlockBytes));
    }
    uint64_t count = std::min<uint64_t>(kBlockBytes - next_offset_ % kBlockBytes, data.size());
    if (count == kBlockBytes && data.size() >= 2 * kBlockBytes) {
      // Whole blocks in one go; the run was opened with the first of them.
      const uint64_t blocks = data.size() / kBlockBytes;
      runs_.back().blocks += blocks - 1;
      count = blocks * kBlockBytes;
    }
    RETURN_IF_ERROR(writer_->Append(data.substr(0, count)));
    data.remove_prefix(count);
    next_offset_ += count;
  }
  if (next_offset_ % kBlockBytes == 0) block_open_ = false;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DataRun>> DataPlacer::EndFile() {
  if (block_open_) RETURN_IF_ERROR(CloseBlock());
  stream_blocks_ += file_blocks_;
  if (written_) slack_ += file_blocks_;
  return std::move(runs_);
}

}  // namespace bunker::agent
