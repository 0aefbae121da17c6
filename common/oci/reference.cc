#include "common/oci/reference.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "common/base/converters.h"
#include "common/base/status_macros.h"

namespace bunker::oci {
namespace {
constexpr size_t kMaxReferenceLength = 512;
constexpr size_t kMaxRepositoryLength = 255;
constexpr size_t kMaxTagLength = 128;
constexpr size_t kMaxHostLength = 255;
constexpr std::string_view kHub = "docker.io";
constexpr std::string_view kHubEndpoint = "registry-1.docker.io";

bool IsLower(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool IsAlnum(char c) {
  return IsLower(c) || (c >= 'A' && c <= 'Z');
}

std::string Shown(std::string_view text) {
  std::string shown = "\"";
  for (const char c : text.substr(0, 120)) shown.push_back(c >= ' ' && c < 0x7f ? c : '?');
  return shown + "\"";
}

absl::Status Bad(std::string_view reference, std::string_view why) {
  return absl::InvalidArgumentError("image reference " + Shown(reference) + ": " +
                                    std::string(why));
}

bool IsPort(std::string_view text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port > 0 && port <= 65535;
}

// One path component: runs of [a-z0-9] joined by one ".", one or two "_", or any number of "-".
bool IsComponent(std::string_view component) {
  if (component.empty() || !IsLower(component.front()) || !IsLower(component.back())) return false;
  for (size_t i = 0; i < component.size();) {
    if (IsLower(component[i])) {
      ++i;
      continue;
    }
    const char separator = component[i];
    size_t run = 0;
    while (i < component.size() && component[i] == separator) ++i, ++run;
    if (!IsLower(component[i])) return false;  // never past the end: the last one is alphanumeric
    if (separator == '-') continue;
    if (!(separator == '.' && run == 1) && !(separator == '_' && run <= 2)) return false;
  }
  return true;
}

bool IsTag(std::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTagLength || tag.front() == '.' || tag.front() == '-')
    return false;
  return std::all_of(tag.begin(), tag.end(),
                     [](char c) { return IsAlnum(c) || c == '_' || c == '.' || c == '-'; });
}

bool LooksLikeHost(std::string_view component) {
  return component == "localhost" || component.find_first_of(".:[") != std::string_view::npos;
}

bool IsHostLabels(std::string_view name) {
  if (name.empty() || name.front() == '.' || name.front() == '-' || name.back() == '-')
    return false;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '.' && i + 1 < name.size() && (name[i + 1] == '.' || name[i + 1] == '-'))
      return false;
    if (!IsAlnum(name[i]) && name[i] != '.' && name[i] != '-' && name[i] != '_') return false;
  }
  return true;
}

absl::Status CheckRepository(std::string_view whole, std::string_view repository) {
  if (repository.empty()) return Bad(whole, "the repository is missing: write host/name:tag");
  if (repository.size() > kMaxRepositoryLength)
    return Bad(whole, "the repository is longer than 255 characters");
  if (std::any_of(repository.begin(), repository.end(),
                  [](char c) { return c >= 'A' && c <= 'Z'; }))
    return Bad(whole, "the repository must be in lower case");
  for (size_t start = 0; start <= repository.size();) {
    const size_t slash = std::min(repository.find('/', start), repository.size());
    if (!IsComponent(repository.substr(start, slash - start))) {
      return Bad(whole, "the repository part " + Shown(repository.substr(start, slash - start)) +
                            " may hold a-z, 0-9 and single separators . _ - between them");
    }
    start = slash + 1;
  }
  return absl::OkStatus();
}
}  // namespace

std::string Reference::Endpoint() const {
  return host == kHub ? std::string(kHubEndpoint) : host;
}

std::string Reference::ToString() const {
  std::string text = Name();
  if (!tag.empty()) text += ":" + tag;
  if (!digest.empty()) text += "@" + digest.str();
  return text;
}

absl::StatusOr<std::string> ParseRegistryHost(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return absl::InvalidArgumentError("registry host " + Shown(text) + ": " + std::string(why));
  };
  if (text.empty() || text.size() > kMaxHostLength) return bad("write host or host:port");
  if (text.find("://") != std::string_view::npos) return bad("leave out the scheme");
  std::string_view name = text, port;
  if (text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return bad("the ] of the IPv6 address is missing");
    name = text.substr(0, close + 1);
    const std::string_view address = name.substr(1, close - 1);
    if (address.find_first_not_of("0123456789abcdefABCDEF:.") != std::string_view::npos ||
        address.find(':') == std::string_view::npos)
      return bad("what stands in brackets must be an IPv6 address");
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty() && (rest.front() != ':' || !IsPort(rest.substr(1))))
      return bad("after the ] only a port from 1 to 65535 may follow");
  } else {
    const size_t colon = text.find(':');
    if (colon != std::string_view::npos) {
      name = text.substr(0, colon);
      port = text.substr(colon + 1);
      if (!IsPort(port)) return bad("the port must be a number from 1 to 65535");
    }
    if (!IsHostLabels(name)) return bad("the name may hold letters, digits, dots and hyphens");
  }
  std::string host(text);
  std::transform(host.begin(), host.end(), host.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (host == "index.docker.io" || host == kHubEndpoint) host = kHub;
  return host;
}

absl::StatusOr<std::string> RegistryHostOf(std::string_view url) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (url.substr(0, scheme.size()) == scheme) url.remove_prefix(scheme.size());
  }
  if (url.find('@') != std::string_view::npos) {  // and say nothing of what stands before it
    return absl::InvalidArgumentError("registry host: leave out the user name and password");
  }
  const size_t slash = url.find('/');
  std::string_view path = slash == std::string_view::npos ? "" : url.substr(slash);
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  if (!path.empty() && path != "/v1" && path != "/v2") {
    return absl::InvalidArgumentError("registry host " + Shown(url) +
                                      ": leave out the path: it is for a whole registry");
  }
  return ParseRegistryHost(url.substr(0, slash));
}

absl::StatusOr<Reference> ParseReference(std::string_view text) {
  if (text.empty()) return Bad(text, "it is empty: write host/name:tag");
  if (text.size() > kMaxReferenceLength) return Bad(text, "it is longer than 512 characters");
  if (text.find("://") != std::string_view::npos)
    return Bad(text, "leave out the scheme: write host/name:tag");
  Reference reference;
  std::string_view rest = text;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    auto digest = Digest::Parse(rest.substr(at + 1));
    if (!digest.ok()) return Bad(text, ToStd(digest.status().message()));
    reference.digest = *digest;
    rest = rest.substr(0, at);
  }
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos && LooksLikeHost(rest.substr(0, slash))) {
    auto host = ParseRegistryHost(rest.substr(0, slash));
    if (!host.ok()) return Bad(text, ToStd(host.status().message()));
    reference.host = *host;
    rest = rest.substr(slash + 1);
  } else {
    reference.host = std::string(kHub);
  }
  if (const size_t colon = rest.find(':'); colon != std::string_view::npos) {
    const std::string_view tag = rest.substr(colon + 1);
    if (!IsTag(tag)) {
      return Bad(text, "the tag " + Shown(tag) +
                           " may hold letters, digits, _ . - (at most 128 of them, starting with "
                           "neither . nor -)");
    }
    reference.tag = std::string(tag);
    rest = rest.substr(0, colon);
  }
  reference.repository = std::string(rest);
  if (reference.host == kHub && !rest.empty() && rest.find('/') == std::string_view::npos)
    reference.repository = "library/" + reference.repository;
  RETURN_IF_ERROR(CheckRepository(text, reference.repository));
  if (reference.tag.empty() && reference.digest.empty()) reference.tag = "latest";
  return reference;
}

}  // namespace bunker::oci
