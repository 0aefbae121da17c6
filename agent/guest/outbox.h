// What goes out to the host: frames in order, bounded for data, written as the port takes them.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "common/wire/frame.h"

namespace bunker::guest {

class Outbox {
 public:
  Outbox();

  // `fd` is non-blocking and outlives this.
  void Attach(int fd) { fd_ = fd; }
  // Everything queued is dropped: it belonged to `epoch`'s predecessor.
  void StartSession(uint64_t epoch);

  // Whether data frames may be added. Control frames always may: their number is bounded by what
  // they answer.
  bool HasRoom() const { return queued_bytes_ < kMaxQueuedBytes; }

  void Send(uint32_t stream, wire::FrameType type, std::string_view payload);

  // A data frame without a copy: fill DataSpace() (kMaxDataBytes), then say how many bytes it has.
  char* DataSpace() { return scratch_.get() + wire::kHeaderBytes; }
  void SendData(uint32_t stream, wire::FrameType type, size_t bytes);

  // Writes until the port takes no more.
  void Flush();

 private:
  static constexpr size_t kMaxQueuedBytes = 512 * 1024;

  void Write(std::string_view frame);

  int fd_ = -1;
  uint64_t epoch_ = 0;
  std::unique_ptr<char[]> scratch_;
  std::deque<std::string> queue_;
  size_t front_written_ = 0;
  size_t queued_bytes_ = 0;
};

}  // namespace bunker::guest
