#include "agent/guest/file_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "agent/guest/file_child.h"

namespace bunker::guest {
namespace {

using wire::FrameType;

constexpr size_t kMaxChildren = 32;
constexpr int kMaxWatches = 16;  // they end when their clients want: others must have room
constexpr size_t kMaxPathBytes = 4095;
constexpr int kSocketBytes = 512 * 1024;

template <typename Message>
bool Parse(const wire::Frame& frame, Message* message) {
  return message->ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size()));
}

bool IsPath(const std::string& path) {
  return !path.empty() && path.front() == '/' && path.size() <= kMaxPathBytes &&
         path.find('\0') == std::string::npos;
}

FileResult CheckStart(const v1::FileStart& start) {
  if (!IsPath(start.path()) || (start.op() == v1::FileStart::MOVE && !IsPath(start.to()))) {
    return FileFailure(v1::FileEnd::INVALID, "a path must begin with /, hold no NUL, and have at "
                                             "most 4095 bytes");
  }
  if (start.mode() > 07777) return FileFailure(v1::FileEnd::INVALID, "mode is above 7777");
  return {};
}

bool MakeSocketPair(Fd* ours, Fd* theirs) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return false;
  *ours = Fd(ends[0]);
  *theirs = Fd(ends[1]);
  for (const int end : ends) {
    // Best effort: with less room the two take turns more often.
    setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBytes, sizeof(kSocketBytes));
  }
  return fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0;
}

v1::FileEnd::Kind KindOf(v1::ExecError::Kind kind) {
  switch (kind) {
    case v1::ExecError::ROOT_DENIED:
      return v1::FileEnd::ROOT_DENIED;
    case v1::ExecError::NOT_BOOTED:
      return v1::FileEnd::NOT_BOOTED;
    default:
      return v1::FileEnd::INVALID;
  }
}

}  // namespace

void FileServer::Refuse(uint32_t stream, v1::FileEnd::Kind kind, const std::string& message) {
  v1::FileEnd end;
  end.set_kind(kind);
  end.set_message(message);
  outbox_->Send(stream, FrameType::kFileEnd, end.SerializeAsString());
}

FileResult FileServer::CheckBusy(v1::FileStart::Op op) const {
  if (children_.size() >= kMaxChildren) {
    return FileFailure(v1::FileEnd::BUSY, "32 operations on files are under way; wait for one");
  }
  const auto watches = std::count_if(children_.begin(), children_.end(), [](const auto& child) {
    return child.second == v1::FileStart::WATCH;
  });
  if (op == v1::FileStart::WATCH && watches >= kMaxWatches) {
    return FileFailure(v1::FileEnd::BUSY, "16 watches are open; end one");
  }
  return {};
}

void FileServer::Start(const wire::Frame& frame) {
  if (sessions_.count(frame.stream) > 0) return;
  v1::FileStart start;
  if (!Parse(frame, &start)) {
    return Refuse(frame.stream, v1::FileEnd::INVALID, "the request can't be read");
  }
  if (const FileResult result = CheckStart(start); !result.ok()) {
    return Refuse(frame.stream, result.kind, result.message);
  }
  if (const FileResult result = CheckBusy(start.op()); !result.ok()) {
    return Refuse(frame.stream, result.kind, result.message);
  }
  Identity identity;
  const IdentityWish wish{start.user(), start.allow_root(), start.default_to_1000()};
  if (const CommandError error = launcher_->Identify(wish, &identity); !error.ok()) {
    return Refuse(frame.stream, KindOf(error.kind), error.message);
  }
  Fd ours, theirs;
  if (!MakeSocketPair(&ours, &theirs)) {
    return Refuse(frame.stream, v1::FileEnd::FAILED, ErrnoError("make a socket").message);
  }
  const pid_t pid = fork();
  if (pid < 0) return Refuse(frame.stream, v1::FileEnd::FAILED, ErrnoError("fork").message);
  if (pid == 0) RunFileChild(start, identity, std::move(theirs));
  children_[pid] = start.op();
  sessions_[frame.stream] =
      std::make_unique<FileSession>(frame.stream, std::move(ours), poller_, outbox_,
                                    kTokenBit | uint64_t{frame.stream} << 1);
}

void FileServer::OnFrame(const wire::Frame& frame) {
  if (frame.type == FrameType::kFileStart) return Start(frame);
  const auto found = sessions_.find(frame.stream);
  if (found == sessions_.end()) return;  // it has ended meanwhile
  FileSession& session = *found->second;
  bool kept_the_rules = true;
  switch (frame.type) {
    case FrameType::kFileData:
      kept_the_rules = session.OnData(frame.payload);
      break;
    case FrameType::kFileCommit:
      session.OnCommit(frame.payload);
      break;
    case FrameType::kFileCancel:
      session.Cancel("it was given up");
      break;
    case FrameType::kFileCredit: {
      v1::Credit credit;
      kept_the_rules = Parse(frame, &credit) && session.OnCredit(credit.bytes());
      break;
    }
    default:
      break;
  }
  if (!kept_the_rules) session.Cancel("the host broke the channel's rules");
}

void FileServer::OnReady(uint64_t token) {
  const auto found = sessions_.find(static_cast<uint32_t>((token >> 1) & UINT32_MAX));
  if (found == sessions_.end()) return;
  if ((token & 1) == 0) {
    found->second->OnReadable();
  } else {
    found->second->OnWritable();
  }
}

void FileServer::OnRoom() {
  for (const auto& [stream, session] : sessions_) session->OnRoom();
}

void FileServer::Collect() {
  std::erase_if(sessions_, [](const auto& entry) { return entry.second->finished(); });
}

}  // namespace bunker::guest
