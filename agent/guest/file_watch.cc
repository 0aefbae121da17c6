#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/guest/file_ops.h"

namespace bunker::guest {
namespace {

constexpr size_t kReadBytes = 16 * 1024;  // some hundred events; one is at most 272

struct KindOfMask {
  uint32_t mask;
  v1::FileEvent::Kind kind;
};
// What is told, and what for.
constexpr KindOfMask kKinds[] = {
    {IN_CREATE, v1::FileEvent::CREATED},        {IN_CLOSE_WRITE, v1::FileEvent::MODIFIED},
    {IN_DELETE, v1::FileEvent::REMOVED},        {IN_MOVED_FROM, v1::FileEvent::MOVED_FROM},
    {IN_MOVED_TO, v1::FileEvent::MOVED_TO},     {IN_ATTRIB, v1::FileEvent::ATTRIBUTES},
    {IN_DELETE_SELF, v1::FileEvent::ENDED},     {IN_MOVE_SELF, v1::FileEvent::ENDED},
    {IN_Q_OVERFLOW, v1::FileEvent::LOST},       {IN_UNMOUNT, v1::FileEvent::ENDED},
    {IN_IGNORED, v1::FileEvent::ENDED},
};

uint32_t AskedFor() {
  uint32_t mask = 0;
  for (const KindOfMask& one : kKinds) mask |= one.mask;
  return mask & IN_ALL_EVENTS;  // the others come unasked
}

v1::FileEvent::Kind KindOf(uint32_t mask) {
  for (const KindOfMask& one : kKinds) {
    if ((mask & one.mask) != 0) return one.kind;
  }
  return v1::FileEvent::KIND_UNSPECIFIED;
}

FileResult CanNotWatch(const std::string& path) {
  // Not the disk is full, but what one user may watch at once.
  if (errno == ENOSPC || errno == EMFILE) {
    return FileFailure(v1::FileEnd::BUSY,
                       "the user watches as much as the bunker's kernel allows; end a watch");
  }
  return FileErrno(Quoted(path));
}

// False: nobody wants more, or the last one was told.
bool TellEvents(const char* data, size_t size, FilePeer* peer) {
  std::string told;
  bool ended = false;
  while (size >= sizeof(inotify_event) && !ended) {
    inotify_event seen{};
    std::memcpy(&seen, data, sizeof(seen));
    const char* const name = data + sizeof(seen);
    v1::FileEvent event;
    event.set_kind(KindOf(seen.mask));
    event.set_name(std::string(name, strnlen(name, seen.len)));
    event.set_is_folder((seen.mask & IN_ISDIR) != 0);
    event.set_cookie(seen.cookie);
    if (event.kind() != v1::FileEvent::KIND_UNSPECIFIED) {
      told += LengthPrefixed(event.SerializeAsString());
    }
    ended = event.kind() == v1::FileEvent::ENDED;
    data += sizeof(seen) + seen.len;
    size -= sizeof(seen) + seen.len;
  }
  return peer->SendData(told) && !ended;
}

}  // namespace

FileResult WatchPath(const v1::FileStart& start, FilePeer* peer) {
  const Fd watch(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!watch.valid() || inotify_add_watch(watch.get(), start.path().c_str(), AskedFor()) < 0) {
    return CanNotWatch(start.path());
  }
  if (!peer->SendHead(v1::FileHead())) return {};
  for (;;) {
    pollfd waits[2] = {{watch.get(), POLLIN, 0}, {peer->fd(), POLLRDHUP, 0}};
    if (poll(waits, 2, -1) < 0 && errno != EINTR) return FileErrno("watch");
    if (peer->Gone()) return {};
    alignas(inotify_event) char buffer[kReadBytes];
    const ssize_t got = read(watch.get(), buffer, sizeof(buffer));
    if (got < 0 && errno != EAGAIN && errno != EINTR) return FileErrno("watch");
    if (got > 0 && !TellEvents(buffer, static_cast<size_t>(got), peer)) return {};
  }
}

}  // namespace bunker::guest
