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
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kChunk = 64 * kPage;  // two of them stay in a core's cache
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

// Whether a file holds anything between these two.
absl::StatusOr<bool> HasData(int fd, uint64_t begin, uint64_t end) {
  const off_t data = lseek(fd, static_cast<off_t>(begin), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return false;
  if (data < 0) return ErrnoError(errno, "look for the guest's memory");
  return static_cast<uint64_t>(data) < end;
}

// Chunk by chunk what the guest sees: the memory file, and over it the pages of a private mapping.
class MemoryReader {
 public:
  static absl::StatusOr<MemoryReader> Open(pid_t pid, const Mapping& mapping) {
    const std::string proc = absl::StrCat("/proc/", pid);
    const auto open_one = [&](const std::string& name) {
      return UniqueFd(open(absl::StrCat(proc, "/", name).c_str(), O_RDONLY | O_CLOEXEC));
    };
    MemoryReader reader(mapping, open_one("map_files/" + mapping.range), open_one("pagemap"),
                        open_one("mem"));
    if (!reader.file_ || !reader.pagemap_ || !reader.memory_)
      return ErrnoError(errno, "open the guest's memory");
    return reader;
  }

  // False, and nothing read, where there is nothing but zeros: no page was ever touched.
  absl::StatusOr<bool> Read(uint64_t at, char* data, size_t size) {
    ASSIGN_OR_RETURN(const bool in_file, HasData(file_.get(), at, at + size));
    if (in_file) RETURN_IF_ERROR(ReadExactly(file_.get(), data, size, at));
    if (mapping_.shared) return in_file;
    const size_t pages = size / kPage;
    RETURN_IF_ERROR(ReadExactly(pagemap_.get(), reinterpret_cast<char*>(flags_.data()),
                                pages * sizeof(uint64_t),
                                (mapping_.begin + at) / kPage * sizeof(uint64_t)));
    const auto is_own = [&](size_t i) {
      return (flags_[i] & (kPresent | kSwapped)) != 0 && (flags_[i] & kOfTheFile) == 0;
    };
    bool any = in_file;
    for (size_t i = 0; i < pages; ++i) {
      if (!is_own(i)) continue;
      size_t end = i + 1;
      while (end < pages && is_own(end)) ++end;
      if (!std::exchange(any, true)) memset(data, 0, size);
      RETURN_IF_ERROR(ReadExactly(memory_.get(), data + i * kPage, (end - i) * kPage,
                                  mapping_.begin + at + i * kPage));
      i = end;
    }
    return any;
  }

 private:
  MemoryReader(const Mapping& mapping, UniqueFd file, UniqueFd pagemap, UniqueFd memory)
      : mapping_(mapping),
        file_(std::move(file)),
        pagemap_(std::move(pagemap)),
        memory_(std::move(memory)) {}

  Mapping mapping_;
  UniqueFd file_, pagemap_, memory_;
  std::array<uint64_t, kChunk / kPage> flags_{};
};

// Writes the pages that aren't in the file as they are here.
absl::Status WriteChanged(int fd, const char* data, const char* there, size_t size, uint64_t at) {
  for (size_t i = 0; i < size;) {
    if (memcmp(data + i, there + i, kPage) == 0) {
      i += kPage;
      continue;
    }
    size_t end = i + kPage;
    while (end < size && memcmp(data + end, there + end, kPage) != 0) end += kPage;
    RETURN_IF_ERROR(WriteAt(fd, data + i, end - i, at + i));
    i = end;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyGuestMemory(pid_t pid, int fd) {
  ASSIGN_OR_RETURN(const Mapping mapping, FindMemory(pid));
  const uint64_t bytes = mapping.end - mapping.begin;
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0)
    return ErrnoError(errno, "size the guest's memory");
  ASSIGN_OR_RETURN(MemoryReader reader, MemoryReader::Open(pid, mapping));
  std::vector<char> data(kChunk), there(kChunk);
  for (uint64_t at = 0; at < bytes; at += kChunk) {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, bytes - at));
    ASSIGN_OR_RETURN(const bool any, reader.Read(at, data.data(), size));
    ASSIGN_OR_RETURN(const bool had_any, HasData(fd, at, at + size));
    if (!any && !had_any) continue;
    if (!any) memset(data.data(), 0, size);
    if (had_any)
      RETURN_IF_ERROR(ReadExactly(fd, there.data(), size, at));
    else
      memset(there.data(), 0, size);
    RETURN_IF_ERROR(WriteChanged(fd, data.data(), there.data(), size, at));
  }
  return absl::OkStatus();
}

}  // namespace bunker::agent
