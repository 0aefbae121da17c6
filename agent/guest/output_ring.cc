#include "agent/guest/output_ring.h"

#include <algorithm>
#include <iterator>

namespace bunker::guest {

void OutputRing::Append(bool is_stderr, std::string_view data) {
  if (data.empty()) return;
  if (runs_.empty() || runs_.back().is_stderr != is_stderr) runs_.push_back({end_, is_stderr});
  if (data.size() > kBytes) {
    const size_t lost = data.size() - kBytes;
    end_ += lost;
    data.remove_prefix(lost);
  }
  const uint64_t end = end_ + data.size();
  if (buffer_.size() < kBytes) {
    const size_t needed = std::min<uint64_t>(end, kBytes);
    if (needed > buffer_.size())
      buffer_.resize(std::min(kBytes, std::max(needed, 2 * buffer_.size())));
  }
  while (!data.empty()) {
    const size_t at = end_ % kBytes;
    const size_t size = std::min(data.size(), kBytes - at);
    data.copy(&buffer_[at], size);
    end_ += size;
    data.remove_prefix(size);
  }
  if (end_ > kBytes) DropBefore(end_ - kBytes);
  if (runs_.size() > kMaxRuns) DropBefore(runs_[runs_.size() - kMaxRuns].begin);
}

void OutputRing::DropBefore(uint64_t offset) {
  begin_ = std::max(begin_, offset);
  while (runs_.size() > 1 && runs_[1].begin <= begin_) runs_.pop_front();
}

OutputRing::Piece OutputRing::At(uint64_t offset, size_t max_bytes) const {
  const auto next = std::upper_bound(runs_.begin(), runs_.end(), offset,
                                     [](uint64_t at, const Run& run) { return at < run.begin; });
  const uint64_t run_end = next == runs_.end() ? end_ : next->begin;
  const size_t at = offset % kBytes;
  const auto size =
      static_cast<size_t>(std::min<uint64_t>({run_end - offset, max_bytes, kBytes - at}));
  return {std::prev(next)->is_stderr, std::string_view(buffer_).substr(at, size)};
}

}  // namespace bunker::guest
