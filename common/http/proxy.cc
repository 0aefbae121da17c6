#include "common/http/proxy.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "common/http/address_filter.h"

namespace bunker::http {
namespace {
std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string FirstOf(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (std::string value = Env(name); !value.empty()) return value;
  }
  return "";
}

// The address's bytes; "" where it is none.
std::string AddressBytes(const std::string& text) {
  unsigned char bytes[16];
  if (::inet_pton(AF_INET, text.c_str(), bytes) == 1) return {reinterpret_cast<char*>(bytes), 4};
  if (::inet_pton(AF_INET6, text.c_str(), bytes) == 1) return {reinterpret_cast<char*>(bytes), 16};
  return "";
}

bool InNetwork(const std::string& address, const std::string& network, int bits) {
  if (address.size() != network.size() || bits < 0 || bits > static_cast<int>(address.size()) * 8)
    return false;
  const size_t whole = static_cast<size_t>(bits) / 8;
  if (address.compare(0, whole, network, 0, whole) != 0) return false;
  const int rest = bits % 8;
  if (rest == 0) return true;
  const int mask = (0xff << (8 - rest)) & 0xff;
  return (static_cast<unsigned char>(address[whole]) & mask) ==
         (static_cast<unsigned char>(network[whole]) & mask);
}

bool EntryMatches(std::string entry, const Url& url) {
  if (entry == "*") return true;
  const std::string host = url.BareHost();
  const std::string address = AddressBytes(host);
  if (const size_t slash = entry.find('/'); slash != std::string::npos) {
    int bits = -1;
    const char* const end = entry.data() + entry.size();
    if (std::from_chars(entry.data() + slash + 1, end, bits).ptr != end) return false;
    return !address.empty() && InNetwork(address, AddressBytes(entry.substr(0, slash)), bits);
  }
  if (AddressBytes(entry).empty()) {
    if (const size_t colon = entry.rfind(':'); colon != std::string::npos) {
      if (entry.substr(colon + 1) != std::to_string(url.port)) return false;
      entry.resize(colon);
    }
  }
  if (entry.size() > 2 && entry.front() == '[') entry = entry.substr(1, entry.size() - 2);
  if (const std::string own = AddressBytes(entry); !own.empty()) return own == address;
  if (!entry.empty() && entry.front() == '*') entry.erase(0, 1);
  if (!entry.empty() && entry.front() == '.') entry.erase(0, 1);
  if (entry.empty() || !address.empty()) return false;
  if (host == entry) return true;
  return host.size() > entry.size() && host[host.size() - entry.size() - 1] == '.' &&
         host.compare(host.size() - entry.size(), entry.size(), entry) == 0;
}
}  // namespace

ProxyConfig ProxyFromEnvironment() {
  const char* const upper = Env("REQUEST_METHOD").empty() ? "HTTP_PROXY" : "http_proxy";
  return {.http = FirstOf({"http_proxy", upper, "all_proxy", "ALL_PROXY"}),
          .https = FirstOf({"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}),
          .no_proxy = FirstOf({"no_proxy", "NO_PROXY"})};
}

std::string ProxyFor(const ProxyConfig& config, const Url& url) {
  const std::string& proxy = url.scheme == "https" ? config.https : config.http;
  if (proxy.empty() || IsLoopbackHost(url.BareHost())) return "";
  size_t start = 0;
  while (start < config.no_proxy.size()) {
    const size_t end = std::min(config.no_proxy.find_first_of(", ", start), config.no_proxy.size());
    std::string entry = config.no_proxy.substr(start, end - start);
    std::transform(entry.begin(), entry.end(), entry.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!entry.empty() && EntryMatches(entry, url)) return "";
    start = end + 1;
  }
  return proxy;
}

}  // namespace bunker::http
