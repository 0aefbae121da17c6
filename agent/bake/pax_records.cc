#include <algorithm>
#include <limits>

#include "agent/bake/tar_headers.h"

namespace bunker::agent {

namespace {

// Takes the next record off `*payload`; false at the end, and where it is malformed.
bool NextRecord(std::string_view* payload, std::string_view* key, std::string_view* value) {
  size_t length = 0;
  size_t digits = 0;
  while (digits < payload->size() && digits < 8 && (*payload)[digits] >= '0' &&
         (*payload)[digits] <= '9') {
    length = length * 10 + static_cast<size_t>((*payload)[digits++] - '0');
  }
  if (digits == 0 || digits >= payload->size() || (*payload)[digits] != ' ' ||
      length <= digits + 1 || length > payload->size()) {
    return false;
  }
  const std::string_view record = payload->substr(digits + 1, length - digits - 2);
  payload->remove_prefix(length);
  const size_t equals = record.find('=');
  if (equals == std::string_view::npos) return false;
  *key = record.substr(0, equals);
  *value = record.substr(equals + 1);
  return true;
}

}  // namespace

void ParsePaxPayload(std::string_view payload, RawHeaders* headers) {
  bool sparse_name = false;
  std::string_view key, value;
  while (NextRecord(&payload, &key, &value)) {
    const bool name = key == "path" || key == "linkpath" || key == "GNU.sparse.name";
    if (key.find('\0') != std::string_view::npos ||
        (name && value.find('\0') != std::string_view::npos)) {
      headers->has_nul = true;
    }
    if (key.substr(0, 11) == "GNU.sparse.") headers->sparse = true;
    if (key == "GNU.sparse.major") headers->map_in_data = value != "0";
    if (key == "GNU.sparse.name") {
      headers->path = value;
      sparse_name = true;
    } else if (key == "path" && !sparse_name) {
      headers->path = value;
    } else if (key == "linkpath") {
      headers->link = value;
    } else if (key == "mtime") {
      headers->mtime = value;
    } else if (key == "size") {
      headers->size = value;
    }
  }
  if (!payload.empty()) headers->ambiguous = "a malformed pax record";
}

bool HasCommentsOnly(std::string_view payload) {
  std::string_view key, value;
  while (!payload.empty()) {
    if (!NextRecord(&payload, &key, &value) || key != "comment") return false;
  }
  return true;
}

bool ParsePaxTime(std::string_view text, int64_t* seconds, uint32_t* nanoseconds) {
  const bool negative = !text.empty() && text[0] == '-';
  if (negative) text.remove_prefix(1);
  if (text.empty()) return false;
  const size_t dot = std::min(text.find('.'), text.size());
  int64_t whole = 0;
  for (char c : text.substr(0, dot)) {
    if (c < '0' || c > '9' || whole > std::numeric_limits<int64_t>::max() / 10 - 1) return false;
    whole = whole * 10 + (c - '0');
  }
  uint32_t fraction = 0;
  uint32_t scale = 100'000'000;
  if (dot < text.size()) {
    for (char c : text.substr(dot + 1)) {
      if (c < '0' || c > '9') return false;
      fraction += static_cast<uint32_t>(c - '0') * scale;
      scale /= 10;
    }
  }
  if (negative) {
    *seconds = fraction == 0 ? -whole : -whole - 1;
    *nanoseconds = fraction == 0 ? 0 : 1'000'000'000 - fraction;
  } else {
    *seconds = whole;
    *nanoseconds = fraction;
  }
  return true;
}

}  // namespace bunker::agent
