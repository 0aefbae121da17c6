#include "agent/net/http_gate.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "agent/net/name_set.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxHeadBytes = 32 * 1024;
constexpr size_t kMaxLineBytes = 256;
constexpr size_t kMaxTrailerBytes = 4096;
constexpr size_t kMaxMethodBytes = 20;

absl::Status NotHttp(const char* what) {
  return absl::InvalidArgumentError(what);
}

bool IsTokenByte(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}

bool IsSame(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() &&
         std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) {
           return absl::ascii_tolower(static_cast<unsigned char>(a)) == b;
         });
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool IsDigits(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenByte);
}

// "example.com", "example.com:80"; canonical, "" for anything else.
std::string HostOf(std::string_view authority) {
  const size_t colon = authority.find(':');
  if (colon != std::string_view::npos) {
    const std::string_view port = authority.substr(colon + 1);
    if (port.size() > 5 || !IsDigits(port)) return "";
  }
  return CanonicalName(authority.substr(0, colon));
}

}  // namespace

bool LooksLikeHttp(std::string_view bytes) {
  const std::string_view method = bytes.substr(0, bytes.find(' '));
  return !method.empty() && method.size() <= kMaxMethodBytes &&
         std::all_of(method.begin(), method.end(),
                     [](char c) { return absl::ascii_isupper(static_cast<unsigned char>(c)); });
}

absl::Status HttpGate::Feed(std::string_view bytes, std::string* pass) {
  while (!bytes.empty()) {
    if (state_ == State::kBody || state_ == State::kChunkData) {
      const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
      pass->append(bytes.substr(0, take));
      bytes.remove_prefix(take);
      left_ -= take;
      if (left_ == 0) state_ = state_ == State::kBody ? State::kHead : State::kChunkEnd;
      continue;
    }
    if (state_ != State::kHead) {
      bool whole = false;
      RETURN_IF_ERROR(TakeLine(&bytes, pass, &whole));
      continue;
    }
    const size_t before = held_.size();
    held_.append(bytes);
    const size_t from = before < 3 ? 0 : before - 3;
    const size_t end = held_.find("\r\n\r\n", from);
    if (end == std::string::npos) {
      if (held_.size() > kMaxHeadBytes) return NotHttp("a request's head is too long");
      return absl::OkStatus();
    }
    const std::string head = held_.substr(0, end + 4);
    if (head.size() > kMaxHeadBytes) return NotHttp("a request's head is too long");
    bytes.remove_prefix(head.size() - before);
    held_.clear();
    RETURN_IF_ERROR(TakeHead(head));
    pass->append(head);
  }
  return absl::OkStatus();
}

// Chunk sizes, the ends of chunks, trailers.
absl::Status HttpGate::TakeLine(std::string_view* in, std::string* pass, bool* whole) {
  const size_t newline = in->find('\n');
  const size_t take = newline == std::string_view::npos ? in->size() : newline + 1;
  held_.append(in->substr(0, take));
  in->remove_prefix(take);
  if (held_.size() > kMaxLineBytes) return NotHttp("a line of a chunked body is too long");
  if (newline == std::string_view::npos) return absl::OkStatus();
  if (held_.size() < 2 || held_[held_.size() - 2] != '\r') return NotHttp("a bare line feed");
  const std::string line = std::exchange(held_, "");
  *whole = true;
  RETURN_IF_ERROR(OnLine(std::string_view(line).substr(0, line.size() - 2)));
  pass->append(line);
  return absl::OkStatus();
}

absl::Status HttpGate::OnLine(std::string_view line) {
  if (state_ == State::kChunkEnd) {
    if (!line.empty()) return NotHttp("a chunk is longer than its size");
    state_ = State::kChunkSize;
    return absl::OkStatus();
  }
  if (state_ == State::kTrailer) {
    trailer_bytes_ += line.size();
    if (line.empty()) state_ = State::kHead;
    return trailer_bytes_ > kMaxTrailerBytes ? NotHttp("too many trailers") : absl::OkStatus();
  }
  // Without extensions: servers differ in how they read those.
  if (line.empty() || line.size() > 15 || !std::all_of(line.begin(), line.end(), [](char c) {
        return absl::ascii_isxdigit(static_cast<unsigned char>(c));
      }))
    return NotHttp("a chunk's size is no number");
  left_ = std::stoull(std::string(line), nullptr, 16);
  trailer_bytes_ = 0;
  state_ = left_ == 0 ? State::kTrailer : State::kChunkData;
  return absl::OkStatus();
}

absl::Status HttpGate::ReadHeader(std::string_view line, bool* has_host, bool* has_length,
                                  bool* chunked) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon)))
    return NotHttp("a header that is none");
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (IsSame(name, "host")) {
    if (std::exchange(*has_host, true)) return NotHttp("two Host headers");
    host_ = HostOf(value);
    if (host_.empty()) return absl::PermissionDeniedError("a Host that is no host name");
  } else if (IsSame(name, "content-length")) {
    if (std::exchange(*has_length, true)) return NotHttp("two lengths");
    if (value.empty() || value.size() > 18 || !IsDigits(value))
      return NotHttp("a length that is no number");
    left_ = std::stoull(std::string(value));
  } else if (IsSame(name, "transfer-encoding")) {
    if (*chunked || !IsSame(value, "chunked"))
      return NotHttp("a transfer encoding other than chunked");
    *chunked = true;
  } else if (IsSame(name, "upgrade")) {
    return NotHttp("a change of protocol");  // what follows would be no requests
  }
  return absl::OkStatus();
}

absl::Status HttpGate::TakeHead(std::string_view head) {
  head.remove_suffix(2);  // each line keeps its end
  const size_t first_end = head.find("\r\n");
  const std::string_view request = head.substr(0, first_end);
  head.remove_prefix(first_end + 2);
  const size_t space = request.find(' ');
  const size_t last = request.rfind(' ');
  if (space == std::string_view::npos || last == space) return NotHttp("no request line");
  const std::string_view method = request.substr(0, space);
  const std::string_view target = request.substr(space + 1, last - space - 1);
  const std::string_view version = request.substr(last + 1);
  if (!IsToken(method) || method.size() > kMaxMethodBytes || target.empty() ||
      (version != "HTTP/1.1" && version != "HTTP/1.0"))
    return NotHttp("no HTTP/1 request");
  if (!std::all_of(target.begin(), target.end(), [](char c) { return c > ' ' && c < 0x7f; }))
    return NotHttp("a target with bytes that no target has");
  if (method == "CONNECT") return absl::PermissionDeniedError("CONNECT");
  // "/path" and "*"; "http://host/path" names a host too, which must then be the same.
  target_host_.clear();
  if (target[0] != '/' && target != "*") {
    if (!IsSame(target.substr(0, 7), "http://")) return NotHttp("an odd target");
    const std::string_view rest = target.substr(7);
    target_host_ = HostOf(rest.substr(0, rest.find_first_of("/?#")));
    if (target_host_.empty()) return absl::PermissionDeniedError("a target that is no host name");
  }
  bool has_host = false, has_length = false, chunked = false;
  left_ = 0;
  host_.clear();
  while (!head.empty()) {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    for (const char c : line) {
      if (c == '\r' || c == '\n' || c == '\0') return NotHttp("a header with a bare line end");
    }
    RETURN_IF_ERROR(ReadHeader(line, &has_host, &has_length, &chunked));
  }
  if (!has_host) return absl::PermissionDeniedError("a request without Host");
  if (has_length && chunked) return NotHttp("two lengths");
  if (!target_host_.empty() && target_host_ != host_)
    return absl::PermissionDeniedError("a target that is not its Host");
  if (!allows_(host_)) return absl::PermissionDeniedError(host_);
  state_ = chunked ? State::kChunkSize : left_ > 0 ? State::kBody : State::kHead;
  return absl::OkStatus();
}

}  // namespace bunker::agent
