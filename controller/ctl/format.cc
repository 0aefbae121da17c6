#include "controller/ctl/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "common/base/utf8.h"

namespace bunker::ctl {
namespace {

// Columns of a UTF-8 text, counting each code point as one.
size_t WidthOf(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

std::string Print(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), format, value);
  return buffer;
}

void AppendRow(const std::vector<std::string>& cells, const std::vector<size_t>& widths,
               std::string* out) {
  for (size_t i = 0; i < cells.size(); ++i) {
    *out += cells[i];
    if (i + 1 < cells.size()) out->append(widths[i] - WidthOf(cells[i]) + 2, ' ');
  }
  *out += '\n';
}

// C1 controls, marks and overrides of direction, line and paragraph separators.
bool IsObeyed(uint32_t code_point) {
  return (code_point >= 0x80 && code_point < 0xa0) || code_point == 0x61c ||
         (code_point >= 0x200e && code_point <= 0x200f) ||
         (code_point >= 0x2028 && code_point <= 0x202e) ||
         (code_point >= 0x2066 && code_point <= 0x2069);
}

std::string Replaced(const std::string& raw, bool keep_lines) {
  const std::string text = ToValidUtf8(raw);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t size = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    uint32_t code_point = byte < 0x80 ? byte : byte & (0xffU >> (size + 1));
    for (size_t k = 1; k < size; ++k)
      code_point = code_point << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fU);
    const bool control = (code_point < 0x20 && !(keep_lines && byte == '\n')) || byte == 0x7f;
    out += control || IsObeyed(code_point) ? "?" : text.substr(i, size);
    i += size;
  }
  return out;
}

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit < 3) {
    value /= 1024;
    ++unit;
  }
  return Print("%.1f ", value) + units[unit];
}

std::string FormatSeconds(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "-";
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  char buffer[64];
  if (whole < 60) {
    std::snprintf(buffer, sizeof(buffer), "%lld s", static_cast<long long>(whole));
  } else if (whole < 3600) {
    std::snprintf(buffer, sizeof(buffer), "%lld m %02lld s", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  } else {
    std::snprintf(buffer, sizeof(buffer), "%lld h %02lld m", static_cast<long long>(whole / 3600),
                  static_cast<long long>(whole % 3600 / 60));
  }
  return buffer;
}

std::string FormatMilliseconds(double milliseconds) {
  return milliseconds < 1000 ? Print("%.1f ms", milliseconds)
                             : Print("%.3f s", milliseconds / 1000);
}

std::string FormatAge(double seconds) {
  const std::pair<double, const char*> units[] = {
      {86400.0 * 365, "year"}, {86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
  for (const auto& [size, name] : units) {
    const auto count = static_cast<int64_t>(seconds / size);
    if (count >= 1) return std::to_string(count) + " " + name + (count == 1 ? "" : "s") + " ago";
  }
  return "now";
}

std::string Printable(const std::string& text) {
  return Replaced(text, /*keep_lines=*/false);
}

std::string PrintableLines(const std::string& text) {
  return Replaced(text, /*keep_lines=*/true);
}

std::string FormatTable(const std::vector<std::string>& headings,
                        const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> cells = {headings};
  for (const auto& row : rows) {
    cells.emplace_back();
    for (size_t i = 0; i < headings.size(); ++i) {
      const bool empty = i >= row.size() || row[i].empty();
      cells.back().push_back(empty ? "-" : Printable(row[i]));
    }
  }
  std::vector<size_t> widths(headings.size(), 0);
  for (const auto& row : cells) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], WidthOf(row[i]));
  }
  std::string out;
  for (const auto& row : cells) AppendRow(row, widths, &out);
  return out;
}

}  // namespace bunker::ctl
