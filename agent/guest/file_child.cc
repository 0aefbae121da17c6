#include "agent/guest/file_child.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

#include "agent/guest/file_ops.h"
#include "agent/guest/file_peer.h"
#include "agent/guest/spawn.h"

namespace bunker::guest {
namespace {

constexpr int kSocket = 3;

// A pipe's end that this process inherited and kept would keep some command's pipe open.
bool KeepOnly(Fd* socket) {
  *socket = Fd(fcntl(socket->get(), F_DUPFD_CLOEXEC, kSocket + 1));  // out of the way
  if (!socket->valid()) return false;
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; null >= 0 && fd < 3; ++fd) dup2(null, fd);
  if (dup2(socket->get(), kSocket) < 0) return false;
  *socket = Fd(kSocket);
  return syscall(SYS_close_range, static_cast<unsigned>(kSocket) + 1, ~0U, 0) == 0;
}

bool Become(const Identity& who) {
  const bool own_identity = who.uid == getuid() && who.gid == getgid() && getuid() != 0;
  if (!own_identity &&
      (setgroups(who.groups.size(), who.groups.data()) != 0 ||
       setresgid(who.gid, who.gid, who.gid) != 0 || setresuid(who.uid, who.uid, who.uid) != 0)) {
    return false;
  }
  // Nobody else of that user may look into a copy of PID 1.
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && getuid() == who.uid &&
         geteuid() == who.uid;
}

FileResult Dispatch(const v1::FileStart& start, FilePeer* peer, v1::FileEnd* end) {
  switch (start.op()) {
    case v1::FileStart::READ:
      return ReadPath(start, peer, end);
    case v1::FileStart::WRITE:
      return WriteFile(start, peer, end);
    case v1::FileStart::STAT:
      return StatPath(start.path(), end->mutable_row());
    case v1::FileStart::REMOVE:
      return RemovePath(start, peer, end);
    case v1::FileStart::MAKE_FOLDER:
      return MakeFolder(start, end);
    case v1::FileStart::MOVE:
      return MovePath(start, peer, end);
    case v1::FileStart::PACK:
      return PackFolder(start, peer);
    case v1::FileStart::UNPACK:
      return UnpackFolder(start, peer, end);
    case v1::FileStart::WATCH:
      return WatchPath(start, peer);
    default:
      return FileFailure(v1::FileEnd::INVALID, "this guest does not know the operation");
  }
}

}  // namespace

void RunFileChild(const v1::FileStart& start, const Identity& identity, Fd socket) {
  if (!KeepOnly(&socket)) _exit(125);
  ResetProcessState();
  std::signal(SIGPIPE, SIG_IGN);
  FilePeer peer(std::move(socket));
  v1::FileEnd end;
  FileResult result;
  if (!Become(identity)) {
    result = FileErrno("take the user's identity");
    result.kind = v1::FileEnd::FAILED;
  } else if (chdir("/") != 0) {
    result = FileErrno("enter the root folder");
  } else {
    result = Dispatch(start, &peer, &end);
  }
  if (!result.ok()) end.Clear();
  end.set_kind(result.kind);
  end.set_message(result.message);
  peer.SendEnd(end);
  _exit(0);
}

}  // namespace bunker::guest
