// Which addresses a connection that somebody else's text asked for may go to.
//
// The check runs on the address that is being connected to, after the resolver, so that a name
// which changes its answer between a check and the connect gains nothing.
//
// Thread-safe: free functions.
#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>

namespace bunker::http {

// "" where the address may be reached by anyone's request; otherwise what it is: "a loopback
// address", "an address of this host", "a link-local address", "a cloud metadata address",
// "a multicast address", "an unspecified address", "not an IP address".
// Other private ranges are allowed. IPv4 inside IPv6 (mapped, translated, NAT64, 6to4, Teredo) is
// looked through.
std::string RefusalOf(const sockaddr* address);

// The same for an IP literal; "" for names, which are not resolved here, but "localhost" and what
// is below it is loopback, and the name of a cloud's metadata service is that.
std::string RefusalOfHost(std::string_view bare_host);

// True for 127.0.0.0/8, ::1, localhost and names below it, as text. Resolves nothing.
bool IsLoopbackHost(std::string_view bare_host);

// "192.0.2.1" or "2001:db8::1"; "?" for other families.
std::string AddressText(const sockaddr* address);

}  // namespace bunker::http
