#include "agent/bake/data_placer.h"

#include <algorithm>

#include "common/base/status_macros.h"

namespace bunker::agent {

void DataPlacer::BeginLayer() {
  stream_bytes_ = 0;
  segment_ = 0;
  align_ = true;
}

void DataPlacer::BeginFile(bool written) {
  const uint64_t segment = stream_bytes_ / kSegmentBytes;
  if (segment != segment_) {
    segment_ = segment;
    align_ = true;
  }
  written_ = written;
  counted_bytes_ = 0;
  next_offset_ = 0;
  block_open_ = false;
  runs_.clear();
}

absl::Status DataPlacer::OpenBlock(uint64_t logical) {
  if (align_) {
    const uint64_t at = std::max(writer_->position(), kFirstDataBlock);
    writer_->SkipTo((at + kChunkBlocks - 1) / kChunkBlocks * kChunkBlocks);
    align_ = false;
  }
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
  counted_bytes_ += data.size();
  if (!written_ || data.empty()) return absl::OkStatus();
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
  stream_bytes_ += BlocksFor(counted_bytes_) * kBlockBytes;
  return std::move(runs_);
}

}  // namespace bunker::agent
