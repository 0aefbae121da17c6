#include "agent/vm/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kChunk = 256 * kPage;
// Documentation/admin-guide/mm/pagemap: present, swapped, and "file-mapped or shared".
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;
constexpr uint64_t kOfTheFile = uint64_t{1} << 61;

struct Mapping {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool shared = false;
  std::string range;  // "7f…-7f…", its name below map_files
};

// The one mapping that has the name of a guest's memory.
absl::StatusOr<Mapping> FindMemory(pid_t pid) {
  const std::string name = absl::StrCat(" /memfd:", kGuestMemoryName, " ");
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  for (std::string line; std::getline(maps, line);) {
    Mapping mapping;
    char modes[5] = {};
    unsigned long long begin = 0, end = 0;
    if (sscanf(line.c_str(), "%llx-%llx %4s", &begin, &end, modes) != 3) continue;
    if (line.find(name) == std::string::npos) continue;
    mapping.begin = begin;
    mapping.end = end;
    mapping.shared = modes[3] == 's';
    mapping.range = absl::StrFormat("%x-%x", begin, end);
    return mapping;
  }
  return absl::FailedPreconditionError(
      "this VM's memory can't be copied: it was not started for snapshots");
}

bool AllZero(const char* data, size_t size) {
  return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

absl::Status WriteAt(int fd, const char* data, size_t size, uint64_t at) {
  while (size > 0) {
    const ssize_t count = pwrite(fd, data, size, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(errno, "write the guest's memory");
    data += count;
    size -= static_cast<size_t>(count);
    at += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

// Page by page what isn't zeros.
absl::Status WritePages(int fd, const char* data, size_t size, uint64_t at) {
  for (size_t i = 0; i < size;) {
    if (AllZero(data + i, kPage)) {
      i += kPage;
      continue;
    }
    size_t end = i + kPage;
    while (end < size && !AllZero(data + end, kPage)) end += kPage;
    RETURN_IF_ERROR(WriteAt(fd, data + i, end - i, at + i));
    i = end;
  }
  return absl::OkStatus();
}

absl::Status ReadExactly(int fd, char* data, size_t size, uint64_t at) {
  while (size > 0) {
    const ssize_t count = pread(fd, data, size, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(count == 0 ? EIO : errno, "read the guest's memory");
    data += count;
    size -= static_cast<size_t>(count);
    at += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

// What the memory file itself holds: all of a shared mapping, the base of a private one.
absl::Status CopyFile(pid_t pid, const Mapping& mapping, int out_fd) {
  const uint64_t bytes = mapping.end - mapping.begin;
  const std::string path = absl::StrCat("/proc/", pid, "/map_files/", mapping.range);
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return ErrnoError(errno, "open the guest's memory");
  std::vector<char> chunk(kChunk);
  for (uint64_t at = 0; at < bytes;) {
    const off_t data = lseek(file.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return ErrnoError(errno, "look for the guest's memory");
    const off_t hole = lseek(file.get(), data, SEEK_HOLE);
    if (hole < 0) return ErrnoError(errno, "look for the guest's memory");
    const uint64_t end = std::min(static_cast<uint64_t>(hole), bytes);
    for (at = static_cast<uint64_t>(data); at < end;) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, end - at));
      RETURN_IF_ERROR(ReadExactly(file.get(), chunk.data(), size, at));
      RETURN_IF_ERROR(WritePages(out_fd, chunk.data(), size, at));
      at += size;
    }
  }
  return absl::OkStatus();
}

// The pages that a private mapping has of its own, zeros too: the base may hold something there.
absl::Status CopyOwnPages(pid_t pid, const Mapping& mapping, int out_fd) {
  const std::string proc = absl::StrCat("/proc/", pid);
  const UniqueFd pagemap(open((proc + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd memory(open((proc + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap || !memory) return ErrnoError(errno, "open the VM's memory");
  std::array<uint64_t, kChunk / kPage> flags{};
  std::vector<char> chunk(kChunk);
  for (uint64_t at = mapping.begin; at < mapping.end;) {
    const size_t pages = static_cast<size_t>(std::min<uint64_t>(kChunk, mapping.end - at) / kPage);
    RETURN_IF_ERROR(ReadExactly(pagemap.get(), reinterpret_cast<char*>(flags.data()),
                                pages * sizeof(uint64_t), at / kPage * sizeof(uint64_t)));
    const auto is_own = [&](size_t i) {
      return (flags[i] & (kPresent | kSwapped)) != 0 && (flags[i] & kOfTheFile) == 0;
    };
    for (size_t i = 0; i < pages;) {
      if (!is_own(i)) {
        ++i;
        continue;
      }
      size_t end = i + 1;
      while (end < pages && is_own(end)) ++end;
      const uint64_t from = at + i * kPage;
      RETURN_IF_ERROR(ReadExactly(memory.get(), chunk.data(), (end - i) * kPage, from));
      RETURN_IF_ERROR(WriteAt(out_fd, chunk.data(), (end - i) * kPage, from - mapping.begin));
      i = end;
    }
    at += pages * kPage;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyGuestMemory(pid_t pid, int out_fd) {
  ASSIGN_OR_RETURN(const Mapping mapping, FindMemory(pid));
  if (ftruncate(out_fd, static_cast<off_t>(mapping.end - mapping.begin)) != 0) {
    return ErrnoError(errno, "size the guest's memory");
  }
  RETURN_IF_ERROR(CopyFile(pid, mapping, out_fd));
  return mapping.shared ? absl::OkStatus() : CopyOwnPages(pid, mapping, out_fd);
}

}  // namespace bunker::agent
