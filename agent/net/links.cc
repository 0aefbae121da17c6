#include "agent/net/links.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

absl::StatusOr<UniqueFd> MakeTap(const std::string& name) {
  UniqueFd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return ErrnoError(errno, "/dev/net/tun");
  ifreq request{};
  std::string_view(name).copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd.get(), TUNSETIFF, &request) != 0) return ErrnoError(errno, "making a tap device");
  return fd;
}

absl::Status WriteSetting(const std::string& path, const char* value) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, path);
  return Annotate(WriteAll(fd.get(), value), path);
}

absl::Status SilenceIpv6() {
  RETURN_IF_ERROR(WriteSetting("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"));
  return WriteSetting("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

std::string TokenBucket(uint32_t mbit) {
  const uint64_t burst = std::max<uint64_t>(32 * 1024, uint64_t{mbit} * 125'000 / 50);
  return absl::StrCat("tbf rate ", mbit, "mbit burst ", burst, "b latency 100ms");
}

}  // namespace bunker::agent
