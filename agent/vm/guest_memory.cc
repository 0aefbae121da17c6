#include "agent/vm/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"
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
    if (in_file) RETURN_IF_ERROR(ReadAllAt(file_.get(), data, size, at));
    if (mapping_.shared) return in_file;
    bool any = in_file;
    RETURN_IF_ERROR(ForOwnRuns(at, size, [&](size_t begin, size_t end) {
      if (!std::exchange(any, true)) memset(data, 0, size);
      return ReadOwn(at + begin, data + begin, end - begin);
    }));
    return any;
  }

  // Calls back with where pages lie that the process has for itself, as offsets from `at`.
  template <typename Visit>
  absl::Status ForOwnRuns(uint64_t at, size_t size, Visit visit) {
    const size_t pages = size / kPage;
    RETURN_IF_ERROR(ReadAllAt(pagemap_.get(), reinterpret_cast<char*>(flags_.data()),
                              pages * sizeof(uint64_t),
                              (mapping_.begin + at) / kPage * sizeof(uint64_t)));
    const auto is_own = [&](size_t i) {
      return (flags_[i] & (kPresent | kSwapped)) != 0 && (flags_[i] & kOfTheFile) == 0;
    };
    for (size_t i = 0; i < pages; ++i) {
      if (!is_own(i)) continue;
      size_t end = i + 1;
      while (end < pages && is_own(end)) ++end;
      RETURN_IF_ERROR(visit(i * kPage, end * kPage));
      i = end;
    }
    return absl::OkStatus();
  }

  absl::Status ReadOwn(uint64_t at, char* data, size_t size) {
    return ReadAllAt(memory_.get(), data, size, mapping_.begin + at);
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
    RETURN_IF_ERROR(WriteAllAt(fd, {data + i, end - i}, at + i));
    i = end;
  }
  return absl::OkStatus();
}

// What `fd` has of these bytes, into `there`; zeros where it has none.
absl::StatusOr<bool> ReadThere(int fd, uint64_t at, char* there, size_t size) {
  ASSIGN_OR_RETURN(const bool any, HasData(fd, at, at + size));
  if (!any) {
    memset(there, 0, size);
    return false;
  }
  RETURN_IF_ERROR(ReadAllAt(fd, there, size, at));
  return true;
}

// Two chunks, for what the guest has and what the file has.
struct Buffers {
  std::vector<char> data = std::vector<char>(kChunk);
  std::vector<char> there = std::vector<char>(kChunk);
};

absl::Status CopyChunk(MemoryReader& reader, int fd, uint64_t at, size_t size, Buffers& buffers) {
  ASSIGN_OR_RETURN(const bool any, reader.Read(at, buffers.data.data(), size));
  ASSIGN_OR_RETURN(const bool had_any, ReadThere(fd, at, buffers.there.data(), size));
  if (!any && !had_any) return absl::OkStatus();
  if (!any) memset(buffers.data.data(), 0, size);
  return WriteChanged(fd, buffers.data.data(), buffers.there.data(), size, at);
}

// Of a private mapping only the process' own pages can have changed: those of the file below it
// are in the copy, and a page that became its own once stays so.
absl::Status CopyOwnPages(MemoryReader& reader, int fd, uint64_t at, size_t size,
                          Buffers& buffers) {
  return reader.ForOwnRuns(at, size, [&](size_t begin, size_t end) -> absl::Status {
    const size_t bytes = end - begin;
    RETURN_IF_ERROR(reader.ReadOwn(at + begin, buffers.data.data(), bytes));
    RETURN_IF_ERROR(ReadThere(fd, at + begin, buffers.there.data(), bytes).status());
    return WriteChanged(fd, buffers.data.data(), buffers.there.data(), bytes, at + begin);
  });
}

}  // namespace

absl::Status CopyGuestMemory(pid_t pid, int fd) {
  ASSIGN_OR_RETURN(const Mapping mapping, FindMemory(pid));
  const uint64_t bytes = mapping.end - mapping.begin;
  struct stat info{};
  if (fstat(fd, &info) != 0) return ErrnoError(errno, "look at the copy of the guest's memory");
  // A copy gets its size when it is whole.
  const bool is_whole = static_cast<uint64_t>(info.st_size) == bytes;
  if (!is_whole && ftruncate(fd, 0) != 0) return ErrnoError(errno, "empty the copy");
  ASSIGN_OR_RETURN(MemoryReader reader, MemoryReader::Open(pid, mapping));
  Buffers buffers;
  for (uint64_t at = 0; at < bytes; at += kChunk) {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, bytes - at));
    const bool own_only = is_whole && !mapping.shared;
    RETURN_IF_ERROR(own_only ? CopyOwnPages(reader, fd, at, size, buffers)
                             : CopyChunk(reader, fd, at, size, buffers));
  }
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0)
    return ErrnoError(errno, "size the guest's memory");
  return absl::OkStatus();
}

}  // namespace bunker::agent
