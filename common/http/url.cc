#include "common/http/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "common/base/status_macros.h"

namespace bunker::http {
namespace {
struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Handle = std::unique_ptr<CURLU, UrlDeleter>;
constexpr size_t kMaxUrlBytes = 16384;

std::string Part(const Handle& handle, CURLUPart part, unsigned flags) {
  char* text = nullptr;
  if (curl_url_get(handle.get(), part, &text, flags) != CURLUE_OK) return "";
  std::string value(text);
  curl_free(text);
  return value;
}

absl::Status Bad(std::string_view text, std::string_view why) {
  // What may be a secret is not repeated: user info, and a query (signed URLs carry theirs there).
  const size_t query = text.find('?');
  if (query != std::string_view::npos) text = text.substr(0, query + 1);
  std::string shown;
  if (const size_t at = text.rfind('@'); at != std::string_view::npos) {
    shown = "…";
    text = text.substr(at);
  }
  for (const char c : text.substr(0, 120)) shown.push_back(c >= ' ' && c < 0x7f ? c : '?');
  return absl::InvalidArgumentError("URL \"" + shown + "\": " + std::string(why));
}

absl::StatusOr<Url> FromHandle(const Handle& handle, std::string_view text) {
  Url url;
  url.scheme = Part(handle, CURLUPART_SCHEME, 0);
  if (url.scheme != "http" && url.scheme != "https")
    return Bad(text, "only http and https are spoken");
  if (!Part(handle, CURLUPART_USER, 0).empty() || !Part(handle, CURLUPART_PASSWORD, 0).empty())
    return Bad(text, "it holds a user name; credentials belong in the configuration");
  url.host = Part(handle, CURLUPART_HOST, 0);
  std::transform(url.host.begin(), url.host.end(), url.host.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (url.host.empty()) return Bad(text, "the host is missing");
  url.port = std::atoi(Part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT).c_str());
  curl_url_set(handle.get(), CURLUPART_FRAGMENT, nullptr, 0);
  url.text = Part(handle, CURLUPART_URL, 0);
  return url;
}
}  // namespace

std::string Url::BareHost() const {
  if (host.size() > 2 && host.front() == '[') return host.substr(1, host.size() - 2);
  return host;
}

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return Bad(text, "it is longer than 16 KiB");
  if (text.find('\0') != std::string_view::npos) return Bad(text, "it holds a NUL");
  Handle handle(curl_url());
  const std::string copy(text);
  const CURLUcode code = curl_url_set(handle.get(), CURLUPART_URL, copy.c_str(), 0);
  if (code != CURLUE_OK) return Bad(text, curl_url_strerror(code));
  return FromHandle(handle, text);
}

absl::StatusOr<Url> ResolveUrl(const Url& base, std::string_view location) {
  if (location.size() > kMaxUrlBytes) return Bad(location, "it is longer than 16 KiB");
  if (location.find('\0') != std::string_view::npos) return Bad(location, "it holds a NUL");
  Handle handle(curl_url());
  curl_url_set(handle.get(), CURLUPART_URL, base.text.c_str(), 0);
  const std::string copy(location);
  const CURLUcode code = curl_url_set(handle.get(), CURLUPART_URL, copy.c_str(), 0);
  if (code != CURLUE_OK) return Bad(location, curl_url_strerror(code));
  return FromHandle(handle, location);
}

bool SameOrigin(const Url& a, const Url& b) {
  return a.scheme == b.scheme && a.host == b.host && a.port == b.port;
}

std::string PercentEncode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || c == '-' || c == '.' || c == '_' || c == '~') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

}  // namespace bunker::http
