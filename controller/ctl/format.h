// How figures and tables look on a terminal. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bunker::ctl {

// "512 B", "12.3 MiB", "1.0 GiB".
std::string FormatBytes(uint64_t bytes);

// "3 s", "2 m 05 s", "1 h 02 m".
std::string FormatSeconds(double seconds);

// "45 seconds ago", "3 hours ago": the largest unit alone.
std::string FormatAge(double seconds);

// "41.2 ms", "1.482 s".
std::string FormatMilliseconds(double milliseconds);

// Left-aligned columns, two spaces apart, headings in capitals; the last column is never padded.
// Rows shorter than `headings` are filled with "-". Control characters in cells become "?": names
// come from the server, and a terminal must not obey them.
std::string FormatTable(const std::vector<std::string>& headings,
                        const std::vector<std::vector<std::string>>& rows);

// `text` with everything replaced that a terminal would obey: control characters of both ranges,
// and those that turn the direction of writing.
std::string Printable(const std::string& text);
// The same, but lines stay.
std::string PrintableLines(const std::string& text);

}  // namespace bunker::ctl
