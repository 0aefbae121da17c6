#include "agent/guest/outbox.h"

#include <unistd.h>

#include <cerrno>

namespace bunker::guest {
namespace {

// How many bytes the port took; 0 where it takes none now.
size_t WriteSome(int fd, std::string_view data) {
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t written = write(fd, data.data() + done, data.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    done += static_cast<size_t>(written);
  }
  return done;
}

}  // namespace

Outbox::Outbox() : scratch_(new char[wire::kHeaderBytes + wire::kMaxDataBytes]) {}

void Outbox::StartSession(uint64_t epoch) {
  epoch_ = epoch;
  queue_.clear();
  front_written_ = 0;
  queued_bytes_ = 0;
}

void Outbox::Send(uint32_t stream, wire::FrameType type, std::string_view payload) {
  Write(wire::EncodeFrame(epoch_, stream, type, payload));
}

void Outbox::SendData(uint32_t stream, wire::FrameType type, size_t bytes) {
  const std::string_view payload(DataSpace(), bytes);
  wire::WriteHeader(scratch_.get(), epoch_, stream, type, payload);
  Write(std::string_view(scratch_.get(), wire::kHeaderBytes + bytes));
}

void Outbox::Write(std::string_view frame) {
  if (queue_.empty()) frame.remove_prefix(WriteSome(fd_, frame));
  if (frame.empty()) return;
  queue_.emplace_back(frame);
  queued_bytes_ += frame.size();
}

void Outbox::Flush() {
  while (!queue_.empty()) {
    const std::string& front = queue_.front();
    const size_t taken = WriteSome(fd_, std::string_view(front).substr(front_written_));
    front_written_ += taken;
    queued_bytes_ -= taken;
    if (front_written_ < front.size()) return;
    queue_.pop_front();
    front_written_ = 0;
  }
}

}  // namespace bunker::guest
