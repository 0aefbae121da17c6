#include "agent/host_facts.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/cache/disk_usage.h"
#include "common/base/hex.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {
namespace {

constexpr uint64_t kMaxHashedBytes = 1ull << 30;

template <typename Int>
Int Capped(Int have, Int cap) {
  return cap == 0 ? have : std::min(have, cap);
}

std::string HostArch() {
  utsname name{};
  if (::uname(&name) != 0) return "";
  const std::string machine = name.machine;
  if (machine == "x86_64") return "X86_64";
  return machine == "aarch64" ? "AARCH64" : "";
}

}  // namespace

absl::StatusOr<bunker::link::v1::WorkerFacts> ReadHostFacts(const AgentConfig& config,
                                                            const AcceleratorVerdict& verdict) {
  bunker::link::v1::WorkerFacts facts;
  const uint32_t cores = static_cast<uint32_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  facts.set_cpu_millicores(Capped(cores * 1000, config.cpu_millicores));
  const uint64_t pages = static_cast<uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  const uint64_t page_bytes = static_cast<uint64_t>(std::max(1L, ::sysconf(_SC_PAGESIZE)));
  facts.set_memory_mb(Capped(static_cast<uint32_t>(pages * page_bytes >> 20), config.memory_mb));
  // What the agent's own files take is its own: an agent that starts with a full cache has no
  // smaller disk.
  ASSIGN_OR_RETURN(const DiskUsage disk, MeasureDisk(config.state_dir, config.disk_mb << 20));
  facts.set_disk_mb(disk.capacity_bytes >> 20);
  facts.set_arch(HostArch());
  facts.set_isolation(AcceleratorName(verdict.accelerator));
  facts.set_isolation_reason(verdict.reason);
  for (const auto& [key, value] : config.labels) (*facts.mutable_labels())[key] = value;
  return facts;
}

absl::StatusOr<std::unique_ptr<CgroupRoot>> OpenCgroups(const std::string& policy) {
  if (policy == "off") return nullptr;
  absl::StatusOr<CgroupRoot> root = CgroupRoot::Open("bunker-vms");
  if (root.ok()) return std::make_unique<CgroupRoot>(*std::move(root));
  if (policy == "required") return Annotate(root.status(), "vm.cgroups is required");
  Log(Severity::kWarning, "agent.no_cgroups",
      {{"consequence", "VMs share the host's cpu and memory without bounds of their own"},
       {"why", std::string(root.status().message())}});
  return nullptr;
}

absl::StatusOr<std::string> FileSha256(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "open " + path);
  Sha256 hash;
  std::string buffer(1 << 20, '\0');
  uint64_t total = 0;
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read " + path);
    if (n == 0) return HexEncode(hash.Finish());
    total += static_cast<uint64_t>(n);
    if (total > kMaxHashedBytes) return absl::ResourceExhaustedError(path + " is over 1 GiB");
    hash.Update(buffer.data(), static_cast<size_t>(n));
  }
}

}  // namespace bunker::agent
