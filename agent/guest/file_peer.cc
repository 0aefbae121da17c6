#include "agent/guest/file_peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace bunker::guest {
namespace {

v1::FileEnd::Kind KindOf(int number) {
  switch (number) {
    case ENOENT:
    case ENXIO:
      return v1::FileEnd::NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
      return v1::FileEnd::DENIED;
    case EEXIST:
    case EBUSY:
    case ETXTBSY:
      return v1::FileEnd::EXISTS;
    case ENOTEMPTY:
      return v1::FileEnd::NOT_EMPTY;
    case ENOTDIR:
    case EISDIR:
      return v1::FileEnd::WRONG_TYPE;
    case EINVAL:
    case ELOOP:
    case ENAMETOOLONG:
    case EFBIG:
    case EXDEV:
    case EOPNOTSUPP:
      return v1::FileEnd::INVALID;
    case ENOSPC:
    case EDQUOT:
      return v1::FileEnd::DISK_FULL;
    default:
      return v1::FileEnd::FAILED;
  }
}

}  // namespace

FileResult FileErrno(std::string_view what) {
  const int number = errno;
  return {KindOf(number), std::string(what) + ": " + std::strerror(number)};
}

FileResult FileFailure(v1::FileEnd::Kind kind, std::string message) {
  return {kind, std::move(message)};
}

bool FilePeer::Send(FilePacket type, std::string_view payload) {
  char tag = static_cast<char>(type);
  iovec parts[2] = {{&tag, 1}, {const_cast<char*>(payload.data()), payload.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  for (;;) {
    if (sendmsg(socket_.get(), &message, MSG_NOSIGNAL) >= 0) return true;
    if (errno != EINTR) return false;
  }
}

bool FilePeer::SendHead(const v1::FileHead& head) {
  return Send(FilePacket::kHead, head.SerializeAsString());
}

bool FilePeer::SendEnd(const v1::FileEnd& end) {
  return Send(FilePacket::kEnd, end.SerializeAsString());
}

bool FilePeer::SendData(std::string_view data) {
  while (!data.empty()) {
    const std::string_view piece = data.substr(0, wire::kMaxDataBytes);
    if (!Send(FilePacket::kData, piece)) return false;
    data.remove_prefix(piece.size());
  }
  return true;
}

FilePeer::Received FilePeer::Receive(std::string_view* data, v1::FileCommit* commit) {
  char tag = 0;
  iovec parts[2] = {{&tag, 1}, {buffer_, sizeof(buffer_)}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  ssize_t got = 0;
  do {
    got = recvmsg(socket_.get(), &message, 0);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return Received::kGone;
  const std::string_view payload(buffer_, static_cast<size_t>(got) - 1);
  if (tag == static_cast<char>(FilePacket::kData)) {
    *data = payload;
    return Received::kData;
  }
  const bool readable =
      commit->ParseFromArray(payload.data(), static_cast<int>(payload.size()));
  return readable ? Received::kCommit : Received::kGone;
}

bool FilePeer::Gone() const {
  pollfd wait{socket_.get(), POLLRDHUP, 0};
  return poll(&wait, 1, 0) > 0 && (wait.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

std::string LengthPrefixed(const std::string& message) {
  const auto size = static_cast<uint32_t>(message.size());
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(size >> shift & 0xff);
  return out + message;
}

}  // namespace bunker::guest
