#include "agent/guest/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

#include "agent/guest/fd.h"
#include "agent/guest/small_file.h"

namespace bunker::guest {
namespace {

constexpr char kCard[] = "eth0";
constexpr char kResolver[] = "/etc/resolv.conf";

ifreq ForCard(const std::string& card) {
  ifreq request{};
  card.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

bool PutAddress(const std::string& text, sockaddr* out) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (!text.empty() && inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1) return false;
  *reinterpret_cast<sockaddr_in*>(out) = address;
  return true;
}

Error SetAddress(int control, const std::string& card, const std::string& text,
                 uint32_t prefix_bits) {
  ifreq request = ForCard(card);
  if (!PutAddress(text, &request.ifr_addr)) return {"the card's address is none"};
  if (ioctl(control, SIOCSIFADDR, &request) != 0) return ErrnoError("set the card's address");
  request = ForCard(card);
  sockaddr_in mask{};
  mask.sin_family = AF_INET;
  const uint32_t bits = prefix_bits > 32 ? 32 : prefix_bits;
  mask.sin_addr.s_addr = htonl(bits == 0 ? 0 : ~uint32_t{0} << (32 - bits));
  *reinterpret_cast<sockaddr_in*>(&request.ifr_netmask) = mask;
  if (ioctl(control, SIOCSIFNETMASK, &request) != 0) return ErrnoError("set the card's netmask");
  return {};
}

Error SetFlags(int control, const std::string& card, short flags) {
  ifreq request = ForCard(card);
  request.ifr_flags = flags;
  if (ioctl(control, SIOCSIFFLAGS, &request) != 0) return ErrnoError("set the flags of " + card);
  return {};
}

// The lower the metric, the more is the route liked.
Error SetRoute(int control, std::string card, const std::string& gateway, short metric) {
  rtentry route{};
  route.rt_dev = card.data();
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  route.rt_metric = static_cast<short>(metric + 1);  // the kernel takes one off
  if (!PutAddress("", &route.rt_dst) || !PutAddress("", &route.rt_genmask) ||
      !PutAddress(gateway, &route.rt_gateway))
    return {"the gateway is no address"};
  if (ioctl(control, SIOCADDRT, &route) != 0 && errno != EEXIST) return ErrnoError("set the route");
  return {};
}

constexpr short kUp = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;

// A card that there is.
struct Card {
  std::string name;
  std::string mac;
  bool is_up = false;
};

std::string MacText(const unsigned char* bytes) {
  char text[18] = {};
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2],
                bytes[3], bytes[4], bytes[5]);
  return text;
}

std::vector<Card> CardsThatThereAre(int control) {
  std::vector<Card> cards;
  struct if_nameindex* const all = if_nameindex();
  for (auto* at = all; at != nullptr && at->if_index != 0; ++at) {
    ifreq request = ForCard(at->if_name);
    if (ioctl(control, SIOCGIFHWADDR, &request) != 0) continue;
    if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) continue;
    Card card{at->if_name,
              MacText(reinterpret_cast<const unsigned char*>(request.ifr_hwaddr.sa_data))};
    request = ForCard(at->if_name);
    card.is_up = ioctl(control, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0;
    cards.push_back(std::move(card));
  }
  if (all != nullptr) if_freenameindex(all);
  return cards;
}

const Card* FindCard(const std::vector<Card>& cards, const std::string& mac, bool only_one) {
  for (const Card& card : cards) {
    if (card.mac == mac) return &card;
  }
  return only_one && cards.size() == 1 ? &cards.front() : nullptr;
}

Error SetMac(int control, const std::string& card, const std::string& mac) {
  ifreq request = ForCard(card);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  auto* bytes = reinterpret_cast<unsigned char*>(request.ifr_hwaddr.sa_data);
  if (std::sscanf(mac.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &bytes[0], &bytes[1],
                  &bytes[2], &bytes[3], &bytes[4], &bytes[5]) != 6)
    return {"the card's MAC is none"};
  if (ioctl(control, SIOCSIFHWADDR, &request) != 0) return ErrnoError("set the MAC of " + card);
  return {};
}

Error Rename(int control, const std::string& from, const std::string& to) {
  if (from == to) return {};
  ifreq request = ForCard(from);
  to.copy(request.ifr_newname, IFNAMSIZ - 1);
  if (ioctl(control, SIOCSIFNAME, &request) != 0) return ErrnoError("name a card " + to);
  return {};
}

// As a card of a template is.
bool IsUpWith(int control, const std::string& card, const std::string& address) {
  ifreq request = ForCard(card);
  if (ioctl(control, SIOCGIFFLAGS, &request) != 0 || (request.ifr_flags & IFF_UP) == 0)
    return false;
  request = ForCard(card);
  sockaddr wanted{};
  if (ioctl(control, SIOCGIFADDR, &request) != 0 || !PutAddress(address, &wanted)) return false;
  return reinterpret_cast<const sockaddr_in&>(request.ifr_addr).sin_addr.s_addr ==
         reinterpret_cast<const sockaddr_in&>(wanted).sin_addr.s_addr;
}

// Down, with its MAC, without an address, and under a name that no other card can want.
Error TakeDown(int control, const Card& card, const std::string& mac, const std::string& name) {
  if (Error error = SetFlags(control, card.name, 0); !error.ok()) return error;
  ifreq request = ForCard(card.name);
  if (PutAddress("", &request.ifr_addr) && ioctl(control, SIOCSIFADDR, &request) != 0)
    return ErrnoError("take the address off " + card.name);
  if (card.mac != mac) {
    if (Error error = SetMac(control, card.name, mac); !error.ok()) return error;
  }
  return Rename(control, card.name, name);
}

Error BringUp(int control, const std::string& from, const v1::GuestInterface& wanted,
              short metric) {
  if (Error error = Rename(control, from, wanted.name()); !error.ok()) return error;
  if (!wanted.address().empty()) {
    if (Error error = SetAddress(control, wanted.name(), wanted.address(), wanted.prefix_bits());
        !error.ok())
      return error;
  }
  if (Error error = SetFlags(control, wanted.name(), kUp); !error.ok()) return error;
  if (wanted.gateway().empty()) return {};
  return SetRoute(control, wanted.name(), wanted.gateway(), metric);
}

Error BringCardUp(int control, const v1::GuestNetwork& network) {
  if (Error error = SetAddress(control, kCard, network.address(), network.prefix_bits());
      !error.ok())
    return error;
  if (Error error = SetFlags(control, kCard, kUp); !error.ok()) return error;
  return network.gateway().empty() ? Error{} : SetRoute(control, kCard, network.gateway(), 0);
}

}  // namespace

Error BringNetworkUp(const v1::GuestNetwork& network) {
  const Fd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control.valid()) return ErrnoError("open a socket");
  if (IsUpWith(control.get(), kCard, network.address())) return {};
  return BringCardUp(control.get(), network);
}

Error WriteResolver(const std::string& nameserver) {
  // The image may have a link there, to a file that only a running system would hold.
  struct stat info {};
  const bool is_there = lstat(kResolver, &info) == 0;
  if (is_there && !(S_ISREG(info.st_mode) && info.st_size == 0)) unlink(kResolver);
  return WriteSmallFile(AT_FDCWD, kResolver, O_CREAT | O_NOFOLLOW, 0644,
                        "nameserver " + nameserver + "\n");
}

std::vector<std::string> BringInterfacesUp(
    const google::protobuf::RepeatedPtrField<v1::GuestInterface>& wanted) {
  if (wanted.empty()) return {};
  const Fd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control.valid()) return {ErrnoError("open a socket").message};
  const std::vector<Card> cards = CardsThatThereAre(control.get());
  std::vector<std::string> problems;
  std::vector<std::pair<int, std::string>> taken;  // which, and its name for now
  for (int i = 0; i < wanted.size(); ++i) {
    const v1::GuestInterface& one = wanted[i];
    const Card* card = FindCard(cards, one.mac(), wanted.size() == 1);
    if (card == nullptr) {
      problems.push_back("there is no network card with the MAC " + one.mac());
      continue;
    }
    // It was set up before; what the guest's own root made of it since is its own business.
    if (card->is_up && card->mac == one.mac() && card->name == one.name()) continue;
    const std::string name = "unnamed" + std::to_string(i);
    const Error error = TakeDown(control.get(), *card, one.mac(), name);
    if (error.ok())
      taken.emplace_back(i, name);
    else
      problems.push_back(error.message);
  }
  for (const auto& [i, name] : taken) {
    const Error error = BringUp(control.get(), name, wanted[i], static_cast<short>(i));
    if (!error.ok()) problems.push_back(error.message);
  }
  return problems;
}

}  // namespace bunker::guest
