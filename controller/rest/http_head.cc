#include "controller/rest/http_head.h"

#include <cstddef>

namespace bunker::controller {
namespace {

constexpr size_t kMaxHeaders = 100;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool IsTokenChar(char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

struct Counts {
  int host = 0;
  int length = 0;
  int encoding = 0;
  size_t all = 0;
};

std::string CheckHeaderLine(std::string_view line, Counts* counts) {
  if (++counts->all > kMaxHeaders) return "more than 100 headers";
  if (line.front() == ' ' || line.front() == '\t') return "a folded header line";
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return "a header without a name";
  const std::string_view name = line.substr(0, colon);
  for (const char c : name) {
    if (!IsTokenChar(c)) return "a header name with a character that names don't have";
  }
  const std::string_view value = Trim(line.substr(colon + 1));
  for (const char c : value) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f)
      return "a control character in a header";
  }
  if (EqualsIgnoringCase(name, "host")) {
    ++counts->host;
  } else if (EqualsIgnoringCase(name, "content-length")) {
    ++counts->length;
    if (value.empty() || value.size() > 18) return "a bad Content-Length";
    for (const char c : value) {
      if (c < '0' || c > '9') return "a bad Content-Length";
    }
  } else if (EqualsIgnoringCase(name, "transfer-encoding")) {
    ++counts->encoding;
    if (!EqualsIgnoringCase(value, "chunked")) return "a Transfer-Encoding other than chunked";
  }
  return "";
}

std::string CheckRequestLine(std::string_view line, bool* is_http_1_0) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || first == 0)
    return "a request line that is not METHOD TARGET HTTP/1.1";
  for (const char c : line.substr(0, first)) {
    if (!IsTokenChar(c)) return "a method with a character that methods don't have";
  }
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return "a version other than HTTP/1.1";
  *is_http_1_0 = version == "HTTP/1.0";
  return CheckTarget(line.substr(first + 1, last - first - 1));
}

std::string CheckCounts(const Counts& counts, bool is_http_1_0) {
  if (counts.host > 1 || (counts.host == 0 && !is_http_1_0)) return "not exactly one Host header";
  if (counts.length > 1) return "two Content-Length headers";
  if (counts.encoding > 1) return "two Transfer-Encoding headers";
  if (counts.length > 0 && counts.encoding > 0)
    return "both Content-Length and Transfer-Encoding";
  if (counts.encoding > 0 && is_http_1_0) return "Transfer-Encoding in HTTP/1.0";
  return "";
}

}  // namespace

std::string CheckRequestHead(std::string_view head) {
  Counts counts;
  bool is_http_1_0 = false;
  bool is_request_line = true;
  while (true) {
    const size_t end = head.find_first_of(std::string_view("\r\n\0", 3));
    if (end == std::string_view::npos || head.substr(end, 2) != "\r\n")
      return "a line end other than CR LF";
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (line.empty() && !is_request_line) break;
    std::string wrong = is_request_line ? CheckRequestLine(line, &is_http_1_0)
                                        : CheckHeaderLine(line, &counts);
    if (!wrong.empty()) return wrong;
    is_request_line = false;
  }
  return CheckCounts(counts, is_http_1_0);
}

std::string CheckTarget(std::string_view target) {
  if (target.empty() || target.front() != '/') return "a target that does not begin with /";
  bool in_query = false;
  for (size_t i = 0; i < target.size(); ++i) {
    const auto byte = static_cast<unsigned char>(target[i]);
    if (byte <= 0x20 || byte >= 0x7f) return "a byte in the target that must be escaped";
    if (byte == '#') return "a fragment in the target";
    if (byte == '?') in_query = true;
    if (byte != '%') continue;
    const int high = i + 2 < target.size() ? HexDigit(target[i + 1]) : -1;
    const int low = i + 2 < target.size() ? HexDigit(target[i + 2]) : -1;
    if (high < 0 || low < 0) return "a broken percent escape in the target";
    const int value = high * 16 + low;
    if (value == 0) return "%00 in the target";
    if (!in_query && value == '.') return "an escaped dot in the path";
  }
  const std::string_view path = target.substr(0, target.find('?'));
  if (path.find("//") != std::string_view::npos) return "// in the path";
  for (std::string_view rest = path.substr(1);;) {
    const size_t slash = rest.find('/');
    const std::string_view segment = rest.substr(0, slash);
    if (segment == "." || segment == "..") return "a dot segment in the path";
    if (slash == std::string_view::npos) return "";
    rest.remove_prefix(slash + 1);
  }
}

std::string PercentDecode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      out += static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else if (plus_is_space && text[i] == '+') {
      out += ' ';
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace bunker::controller
