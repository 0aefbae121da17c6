// Which proxy a URL is fetched through. Decided here and not in the HTTP library, because the
// address filter must know whether it sees the target or the proxy.
//
// Thread-safe: values and free functions.
#pragma once

#include <string>
#include <string_view>

#include "common/http/url.h"

namespace bunker::http {

struct ProxyConfig {
  std::string http;      // proxy URL for http targets; "" for none
  std::string https;     // for https targets
  std::string no_proxy;  // "*", or a comma list of names (and what ends in them), addresses, CIDRs,
                         // each with an optional :port
};

// http_proxy, https_proxy, all_proxy and no_proxy, each in lower case or else in upper case.
// HTTP_PROXY is not believed where REQUEST_METHOD is set: a CGI program's client can set it.
ProxyConfig ProxyFromEnvironment();

// The proxy's URL, or "" for a direct connection. Loopback targets are never proxied.
std::string ProxyFor(const ProxyConfig& config, const Url& url);

}  // namespace bunker::http
