#include "agent/guest/file_session.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace bunker::guest {
namespace {

constexpr int kPacketsPerTurn = 16;  // so that one large file leaves room for the others

}  // namespace

FileSession::FileSession(uint32_t stream, Fd socket, Poller* poller, Outbox* outbox, uint64_t token)
    : stream_(stream), outbox_(outbox) {
  Fd twin(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
  in_ = Watched(poller, std::move(socket), EPOLLIN, token);
  out_ = Watched(poller, std::move(twin), EPOLLOUT, token + 1);
  UpdateInterest();
}

bool FileSession::MayRead() const {
  return !finished_ && send_credit_.available() >= wire::kMaxDataBytes && outbox_->HasRoom();
}

void FileSession::OnReadable() {
  for (int turn = 0; turn < kPacketsPerTurn && MayRead(); ++turn) {
    char tag = 0;
    char* const space = outbox_->DataSpace();
    iovec parts[2] = {{&tag, 1}, {space, wire::kMaxDataBytes}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    const ssize_t got = recvmsg(in_.fd(), &message, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) {
      Cancel("the operation's process ended before its work was done");
      return;
    }
    const auto bytes = static_cast<size_t>(got) - 1;
    if (tag == static_cast<char>(FilePacket::kData)) {
      send_credit_.Spend(static_cast<uint32_t>(bytes));
      outbox_->SendData(stream_, wire::FrameType::kFileData, bytes);
    } else if (tag == static_cast<char>(FilePacket::kHead)) {
      outbox_->SendData(stream_, wire::FrameType::kFileHead, bytes);
    } else {
      outbox_->SendData(stream_, wire::FrameType::kFileEnd, bytes);
      finished_ = true;
    }
  }
  UpdateInterest();
}

bool FileSession::SendPacket(FilePacket type, std::string_view payload) {
  char tag = static_cast<char>(type);
  iovec parts[2] = {{&tag, 1}, {const_cast<char*>(payload.data()), payload.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  for (;;) {
    if (sendmsg(out_.fd(), &message, MSG_NOSIGNAL) >= 0) return true;
    if (errno == EINTR) continue;
    // A child that has gone says why, or its socket's end does: its packets are of no use.
    return errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS;
  }
}

bool FileSession::OnData(std::string_view data) {
  if (finished_) return true;
  const bool kept_the_rules = !data.empty() && data.size() <= wire::kMaxDataBytes && !committed_ &&
                              receive_credit_.Receive(data.size());
  if (!kept_the_rules) return false;
  if (queue_.empty() && SendPacket(FilePacket::kData, data)) {
    Consumed(data.size());
  } else {
    queue_.push_back({FilePacket::kData, std::string(data)});
    UpdateInterest();
  }
  return true;
}

void FileSession::OnCommit(std::string_view payload) {
  if (finished_ || std::exchange(committed_, true)) return;
  if (queue_.empty() && SendPacket(FilePacket::kCommit, payload)) return;
  queue_.push_back({FilePacket::kCommit, std::string(payload)});
  UpdateInterest();
}

void FileSession::OnWritable() {
  size_t consumed = 0;
  while (!queue_.empty() && SendPacket(queue_.front().type, queue_.front().payload)) {
    if (queue_.front().type == FilePacket::kData) consumed += queue_.front().payload.size();
    queue_.pop_front();
  }
  Consumed(consumed);
  UpdateInterest();
}

void FileSession::Consumed(size_t bytes) {
  const uint32_t grant = receive_credit_.Consume(bytes);
  if (grant == 0) return;
  v1::Credit credit;
  credit.set_bytes(grant);
  outbox_->Send(stream_, wire::FrameType::kFileCredit, credit.SerializeAsString());
}

bool FileSession::OnCredit(uint32_t bytes) {
  if (finished_) return true;
  if (!send_credit_.Grant(bytes)) return false;
  UpdateInterest();
  return true;
}

void FileSession::Cancel(std::string_view why) {
  if (std::exchange(finished_, true)) return;
  v1::FileEnd end;
  end.set_kind(v1::FileEnd::FAILED);
  end.set_message(std::string(why));
  outbox_->Send(stream_, wire::FrameType::kFileEnd, end.SerializeAsString());
}

void FileSession::UpdateInterest() {
  in_.Watch(MayRead());
  out_.Watch(!queue_.empty() && !finished_);
}

}  // namespace bunker::guest
