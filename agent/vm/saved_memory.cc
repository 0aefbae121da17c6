#include "agent/vm/saved_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "agent/vm/guest_memory.h"
#include "agent/vm/memory_file.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

constexpr std::string_view kMagic = "bunker-devices 1\n";
constexpr size_t kMaxDeviceBytes = 4 << 20;  // a VM's devices take some 16 KiB
constexpr size_t kChunk = 1 << 20;
constexpr const char* kKinds[] = {".mem", ".dev"};

std::string PathOf(const std::string& disk, const char* kind) {
  constexpr std::string_view kDisk = ".ext4";
  BUNKER_CHECK(disk.ends_with(kDisk));
  return disk.substr(0, disk.size() - kDisk.size()) + kind;
}

// `more` is O_EXCL for one that must not be there yet.
absl::StatusOr<UniqueFd> MakeFile(const std::string& path, int more) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | more, 0600));
  if (!fd) return ErrnoError(errno, "make " + path);
  return fd;
}

absl::StatusOr<std::string> ReadDevices(int fd, size_t max_bytes) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "look at a VM's devices");
  if (static_cast<uint64_t>(info.st_size) > max_bytes)
    return absl::DataLossError("a VM's devices take more than they can");
  std::string data(static_cast<size_t>(info.st_size), '\0');
  RETURN_IF_ERROR(Annotate(ReadAllAt(fd, data.data(), data.size(), 0), "a VM's devices"));
  return data;
}

// What is no hole.
absl::Status CopyData(int from, int to, uint64_t bytes) {
  std::vector<char> chunk(kChunk);
  for (uint64_t at = 0; at < bytes;) {
    const off_t data = ::lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    const off_t hole = data < 0 ? -1 : ::lseek(from, data, SEEK_HOLE);
    if (hole < 0) return ErrnoError(errno, "look for a VM's memory");
    const uint64_t end = std::min(static_cast<uint64_t>(hole), bytes);
    for (at = static_cast<uint64_t>(data); at < end;) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, end - at));
      RETURN_IF_ERROR(Annotate(ReadAllAt(from, chunk.data(), size, at), "a VM's memory"));
      RETURN_IF_ERROR(Annotate(WriteAllAt(to, {chunk.data(), size}, at), "a VM's memory"));
      at += size;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> LoadGuestMemory(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file && errno == ENOENT) return absl::NotFoundError(path + " is not there");
  if (!file) return ErrnoError(errno, "open " + path);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return ErrnoError(errno, "look at " + path);
  ASSIGN_OR_RETURN(UniqueFd memory, MakeMemoryFile(kGuestMemoryName));
  if (::ftruncate(memory.get(), info.st_size) != 0)
    return ErrnoError(errno, "size a VM's memory");
  RETURN_IF_ERROR(CopyData(file.get(), memory.get(), static_cast<uint64_t>(info.st_size)));
  RETURN_IF_ERROR(SealMemoryFile(memory.get()));
  return memory;
}

}  // namespace

absl::Status SaveMemoryAhead(Vmm& vmm, const RunningVm& record, const std::string& disk) {
  ASSIGN_OR_RETURN(const UniqueFd memory, MakeFile(PathOf(disk, ".mem") + ".part", O_EXCL));
  return vmm.SaveAhead(record, memory.get());
}

absl::Status SaveMemory(Vmm& vmm, const RunningVm& record, const std::string& basis,
                        const std::string& disk) {
  ASSIGN_OR_RETURN(const UniqueFd memory, MakeFile(PathOf(disk, ".mem") + ".part", 0));
  ASSIGN_OR_RETURN(const UniqueFd file, MakeFile(PathOf(disk, ".dev") + ".part", O_EXCL));
  // The VMM, which is not trusted, writes to a file in memory, and never to the host's disk.
  ASSIGN_OR_RETURN(const UniqueFd devices, MakeMemoryFile("bunker-devices"));
  RETURN_IF_ERROR(vmm.Save(record, memory.get(), devices.get()));
  ASSIGN_OR_RETURN(const std::string state, ReadDevices(devices.get(), kMaxDeviceBytes));
  return Annotate(WriteAllAt(file.get(), std::string(kMagic) + basis + "\n" + state, 0),
                  "a VM's devices");
}

absl::Status PublishMemory(const std::string& disk) {
  for (const char* kind : kKinds) {
    const std::string path = PathOf(disk, kind);
    const std::string part = path + ".part";
    const UniqueFd fd(::open(part.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0) return ErrnoError(errno, "write out " + part);
    if (::rename(part.c_str(), path.c_str()) != 0) return ErrnoError(errno, "name " + path);
  }
  return absl::OkStatus();
}

uint64_t SavedMemoryBytes(const std::string& disk) {
  uint64_t bytes = 0;
  for (const char* kind : kKinds) {
    struct stat info{};
    if (::stat(PathOf(disk, kind).c_str(), &info) == 0)
      bytes += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

absl::StatusOr<VmSnapshot> LoadMemory(const std::string& disk) {
  VmSnapshot snapshot;
  ASSIGN_OR_RETURN(snapshot.memory, LoadGuestMemory(PathOf(disk, ".mem")));
  const std::string path = PathOf(disk, ".dev");
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return ErrnoError(errno, "open " + path);
  ASSIGN_OR_RETURN(const std::string all, ReadDevices(file.get(), kMaxDeviceBytes + 1024));
  const size_t line = all.find('\n', kMagic.size());
  if (!all.starts_with(kMagic) || line == std::string::npos)
    return absl::DataLossError(path + " holds no VM's devices");
  snapshot.basis = all.substr(kMagic.size(), line - kMagic.size());
  ASSIGN_OR_RETURN(snapshot.devices, MakeMemoryFile("bunker-devices"));
  RETURN_IF_ERROR(WriteAllAt(snapshot.devices.get(), std::string_view(all).substr(line + 1), 0));
  RETURN_IF_ERROR(SealMemoryFile(snapshot.devices.get()));
  return snapshot;
}

absl::Status RemoveMemory(const std::string& disk) {
  for (const char* kind : kKinds) {
    for (const char* end : {"", ".part"}) {
      const std::string path = PathOf(disk, kind) + end;
      if (::unlink(path.c_str()) != 0 && errno != ENOENT)
        return ErrnoError(errno, "remove " + path);
    }
  }
  return absl::OkStatus();
}

}  // namespace bunker::agent
