// Length-prefixed protobuf messages over a pipe, bounded on both sides.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace google::protobuf {
class MessageLite;
}

namespace bunker::agent {

inline constexpr uint32_t kMaxFrameBytes = 1 << 20;

// Blocking.
absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message);

// Cuts frames out of what was read. Not thread-safe.
class FrameBuffer {
 public:
  void Append(const char* data, size_t size) { bytes_.append(data, size); }
  // True with a frame's payload in `*payload`; false where more bytes are needed. An error where
  // the sender announces more than kMaxFrameBytes.
  absl::StatusOr<bool> Next(std::string* payload);

 private:
  std::string bytes_;
};

// Blocking: reads `fd` to its end; it must hold exactly one frame.
absl::Status ReadOneFrame(int fd, google::protobuf::MessageLite* message);

}  // namespace bunker::agent
