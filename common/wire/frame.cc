#include "common/wire/frame.h"

#include <algorithm>
#include <cstring>

#include "common/wire/crc32c.h"

namespace bunker::wire {
namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kBufferBytes = kHeaderBytes + kMaxPayloadBytes + kReadBytes;
constexpr size_t kHeaderCrcOffset = 28;

template <typename T>
void Put(char* at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<char>((value >> (8 * i)) & 0xff);
}

template <typename T>
T Get(const char* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<uint8_t>(at[i])) << (8 * i));
  }
  return value;
}

uint32_t LengthOf(const char* header) {
  return Get<uint32_t>(header + 4);
}

}  // namespace

void WriteHeader(char* out, uint64_t epoch, uint32_t stream, FrameType type,
                 std::string_view payload) {
  Put<uint32_t>(out, kMagic);
  Put<uint32_t>(out + 4, static_cast<uint32_t>(payload.size()));
  Put<uint64_t>(out + 8, epoch);
  Put<uint32_t>(out + 16, stream);
  Put<uint32_t>(out + 20, static_cast<uint32_t>(type));
  Put<uint32_t>(out + 24, Crc32c(payload.data(), payload.size()));
  Put<uint32_t>(out + kHeaderCrcOffset, Crc32c(out, kHeaderCrcOffset));
}

std::string EncodeFrame(uint64_t epoch, uint32_t stream, FrameType type, std::string_view payload) {
  std::string frame(kHeaderBytes, '\0');
  WriteHeader(frame.data(), epoch, stream, type, payload);
  frame.append(payload);
  return frame;
}

FrameParser::FrameParser() : buffer_(new char[kBufferBytes]) {}

char* FrameParser::Reserve(size_t* capacity) {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (kBufferBytes - end_ < kReadBytes) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  *capacity = kBufferBytes - end_;
  return buffer_.get() + end_;
}

void FrameParser::Commit(size_t bytes) {
  end_ += bytes;
}

size_t FrameParser::Feed(std::string_view data) {
  size_t capacity = 0;
  char* room = Reserve(&capacity);
  const size_t taken = std::min(capacity, data.size());
  if (taken > 0) std::memcpy(room, data.data(), taken);
  Commit(taken);
  return taken;
}

void FrameParser::HuntFor(uint64_t epoch, FrameType type) {
  hunting_ = true;
  hunted_epoch_ = epoch;
  hunted_type_ = type;
}

bool FrameParser::HeaderIsValid(const char* at) const {
  if (Get<uint32_t>(at) != kMagic || LengthOf(at) > kMaxPayloadBytes) return false;
  if (at[21] != 0 || at[22] != 0 || at[23] != 0) return false;
  if (hunting_ &&
      (Get<uint64_t>(at + 8) != hunted_epoch_ || static_cast<FrameType>(at[20]) != hunted_type_)) {
    return false;
  }
  return Get<uint32_t>(at + kHeaderCrcOffset) == Crc32c(at, kHeaderCrcOffset);
}

// Drops the byte at begin_ and what follows up to the next possible start of a frame.
FrameParser::Result FrameParser::SkipToMagic() {
  const char* start = buffer_.get() + begin_;
  const void* next = std::memchr(start + 1, static_cast<char>(kMagic & 0xff), end_ - begin_ - 1);
  const size_t dropped =
      next ? static_cast<size_t>(static_cast<const char*>(next) - start) : end_ - begin_;
  begin_ += dropped;
  garbage_bytes_ += dropped;
  return Result::kGarbage;
}

FrameParser::Result FrameParser::Next(Frame* frame) {
  const size_t available = end_ - begin_;
  const char* at = buffer_.get() + begin_;
  if (available == 0) return Result::kNeedMore;
  if (available < kHeaderBytes) {
    char magic[4];
    Put<uint32_t>(magic, kMagic);
    if (std::memcmp(at, magic, std::min<size_t>(available, 4)) != 0) return SkipToMagic();
    return Result::kNeedMore;
  }
  if (!HeaderIsValid(at)) return SkipToMagic();
  const size_t length = LengthOf(at);
  if (available < kHeaderBytes + length) return Result::kNeedMore;
  frame->payload = std::string_view(at + kHeaderBytes, length);
  begin_ += kHeaderBytes + length;
  if (Get<uint32_t>(at + 24) != Crc32c(at + kHeaderBytes, length)) {
    garbage_bytes_ += kHeaderBytes + length;
    return Result::kGarbage;
  }
  hunting_ = false;
  frame->epoch = Get<uint64_t>(at + 8);
  frame->stream = Get<uint32_t>(at + 16);
  frame->type = static_cast<FrameType>(at[20]);
  return Result::kFrame;
}

}  // namespace bunker::wire
