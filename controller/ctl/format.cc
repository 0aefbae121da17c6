#include "controller/ctl/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

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

std::string Printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = '?';
  }
  return text;
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
