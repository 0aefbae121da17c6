#include "agent/guest/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "agent/guest/fd.h"

namespace bunker::guest {

Error ReadSmallFile(int dir_fd, const char* path, size_t max_bytes, std::string* content) {
  const Fd file(openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.valid()) return ErrnoError(path);
  content->clear();
  char chunk[4096];
  for (;;) {
    const ssize_t got = read(file.get(), chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(path);
    if (got == 0) return {};
    content->append(chunk, static_cast<size_t>(got));
    if (content->size() > max_bytes) return {std::string(path) + ": larger than allowed"};
  }
}

Error WriteSmallFile(int dir_fd, const char* path, int flags, unsigned mode,
                     std::string_view content) {
  const Fd file(openat(dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOCTTY | flags, mode));
  if (!file.valid()) return ErrnoError(path);
  while (!content.empty()) {
    const ssize_t written = write(file.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoError(path);
    content.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace bunker::guest
