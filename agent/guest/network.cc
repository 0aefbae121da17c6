#include "agent/guest/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "agent/guest/fd.h"
#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

constexpr char kCard[] = "eth0";
constexpr char kResolver[] = "/etc/resolv.conf";

ifreq ForCard() {
  ifreq request{};
  std::string(kCard).copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

bool PutAddress(const std::string& text, sockaddr* out) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (!text.empty() && inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1) return false;
  *reinterpret_cast<sockaddr_in*>(out) = address;
  return true;
}

Error SetAddress(int control, const v1::GuestNetwork& network) {
  ifreq request = ForCard();
  if (!PutAddress(network.address(), &request.ifr_addr)) return {"the card's address is none"};
  if (ioctl(control, SIOCSIFADDR, &request) != 0) return ErrnoError("set the card's address");
  request = ForCard();
  sockaddr_in mask{};
  mask.sin_family = AF_INET;
  const uint32_t bits = network.prefix_bits() > 32 ? 32 : network.prefix_bits();
  mask.sin_addr.s_addr = htonl(bits == 0 ? 0 : ~uint32_t{0} << (32 - bits));
  *reinterpret_cast<sockaddr_in*>(&request.ifr_netmask) = mask;
  if (ioctl(control, SIOCSIFNETMASK, &request) != 0) return ErrnoError("set the card's netmask");
  request = ForCard();
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
  if (ioctl(control, SIOCSIFFLAGS, &request) != 0) return ErrnoError("bring the card up");
  return {};
}

Error SetRoute(int control, const std::string& gateway) {
  rtentry route{};
  std::string card = kCard;
  route.rt_dev = card.data();
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (!PutAddress("", &route.rt_dst) || !PutAddress("", &route.rt_genmask) ||
      !PutAddress(gateway, &route.rt_gateway))
    return {"the gateway is no address"};
  if (ioctl(control, SIOCADDRT, &route) != 0 && errno != EEXIST) return ErrnoError("set the route");
  return {};
}

}  // namespace

Error BringNetworkUp(const v1::GuestNetwork& network) {
  const Fd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control.valid()) return ErrnoError("open a socket");
  if (Error error = SetAddress(control.get(), network); !error.ok()) return error;
  if (!network.gateway().empty()) {
    if (Error error = SetRoute(control.get(), network.gateway()); !error.ok()) return error;
  }
  if (network.nameserver().empty()) return {};
  // The image may have a link there, to a file that only a running system would hold.
  unlink(kResolver);
  return WriteSmallFile(AT_FDCWD, kResolver, O_CREAT | O_TRUNC | O_NOFOLLOW, 0644,
                        "nameserver " + network.nameserver() + "\n");
}

}  // namespace bunker::guest
