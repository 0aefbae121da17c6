#include "agent/confined/frame_pipe.h"

#include <google/protobuf/message_lite.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message) {
  const std::string payload = message.SerializeAsString();
  if (payload.size() > kMaxFrameBytes) return absl::ResourceExhaustedError("a frame is too large");
  const auto size = static_cast<uint32_t>(payload.size());
  std::string frame(sizeof(size), '\0');
  std::memcpy(frame.data(), &size, sizeof(size));
  return WriteAll(fd, frame + payload);
}

absl::StatusOr<bool> FrameBuffer::Next(std::string* payload) {
  uint32_t size = 0;
  if (bytes_.size() < sizeof(size)) return false;
  std::memcpy(&size, bytes_.data(), sizeof(size));
  if (size > kMaxFrameBytes) return absl::ResourceExhaustedError("a frame is too large");
  if (bytes_.size() < sizeof(size) + size) return false;
  payload->assign(bytes_, sizeof(size), size);
  bytes_.erase(0, sizeof(size) + size);
  return true;
}

absl::Status ReadOneFrame(int fd, google::protobuf::MessageLite* message) {
  FrameBuffer frames;
  std::string payload;
  for (;;) {
    char buffer[65536];
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoError(errno, "reading a frame");
    if (count == 0) return absl::DataLossError("the pipe ended within a frame");
    frames.Append(buffer, static_cast<size_t>(count));
    ASSIGN_OR_RETURN(const bool complete, frames.Next(&payload));
    if (complete) break;
  }
  if (!message->ParseFromString(payload)) return absl::DataLossError("a frame cannot be parsed");
  return absl::OkStatus();
}

}  // namespace bunker::agent
