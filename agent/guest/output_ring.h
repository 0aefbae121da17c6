// The newest output of a process: both outputs in the order in which they were read, each byte with
// an offset that counts from the process's start. What is pushed out is missed by offset, never
// silently.
//
// Bounded: kBytes of data and kMaxRuns changes between the outputs. Grows as it fills. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace bunker::guest {

class OutputRing {
 public:
  static constexpr size_t kBytes = 256 * 1024;
  static constexpr size_t kMaxRuns = 4096;

  void Append(bool is_stderr, std::string_view data);

  uint64_t begin() const { return begin_; }  // the oldest offset that is kept
  uint64_t end() const { return end_; }      // of what comes next

  struct Piece {
    bool is_stderr = false;
    std::string_view data;  // until the next Append()
  };
  // What lies at `offset`: bytes of one output, at least one and at most `max_bytes`.
  // REQUIRES: begin() <= offset < end(), max_bytes > 0.
  Piece At(uint64_t offset, size_t max_bytes) const;

 private:
  // From `begin` to the next run's.
  struct Run {
    uint64_t begin;
    bool is_stderr;
  };

  void DropBefore(uint64_t offset);

  std::string buffer_;  // the byte at an offset is at offset % kBytes
  std::deque<Run> runs_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
};

}  // namespace bunker::guest
