#include "controller/ctl/progress.h"

#include <algorithm>

#include "controller/ctl/format.h"

namespace bunker::ctl {
namespace {

constexpr size_t kBarWidth = 24;
constexpr size_t kStateWidth = 9;  // "resolving", "verifying"
constexpr absl::Duration kPlainInterval = absl::Seconds(2);

std::string Padded(std::string text, size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string Bar(double share) {
  const auto filled = static_cast<size_t>(share * kBarWidth);
  return "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "]";
}

// Not begun, for a reason that only somebody's deed takes away: the worker has no room.
bool LeftOut(const CacheRow& row) {
  return row.status == "pending" && !row.error_code.empty();
}

bool SettledRow(const CacheRow& row) {
  return row.status == "ready" || row.status == "failed" || row.status == "evicted" ||
         LeftOut(row);
}

std::string StateOf(const CacheRow& row) {
  return row.status == "building" && !row.stage.empty() ? row.stage : row.status;
}

}  // namespace

std::string FormatProgressLine(const CacheRow& row, size_t name_width) {
  const std::string name = row.worker_name.empty() ? row.worker_id : row.worker_name;
  std::string line = Padded(Printable(name), name_width) + "  ";
  if (row.status == "pending" && !LeftOut(row)) return line + row.status;
  line += Padded(StateOf(row), kStateWidth);
  if (row.status == "failed" || LeftOut(row)) {
    return line + "  " + row.error_code + ": " + Printable(row.error_message);
  }
  const uint64_t total = row.bytes_total.value_or(0);
  if (row.status == "ready") {
    line += "  " + Bar(1.0) + " 100 %";
    if (total > 0) line += "  " + FormatBytes(total);
    return line;
  }
  if (total > 0) {
    const double share =
        std::min(1.0, static_cast<double>(row.bytes_done) / static_cast<double>(total));
    std::string percent = std::to_string(static_cast<int>(share * 100));
    line += "  " + Bar(share) + " " + std::string(3 - std::min<size_t>(3, percent.size()), ' ') +
            percent + " %  " + FormatBytes(row.bytes_done) + " of " + FormatBytes(total);
  } else if (row.bytes_done > 0) {
    line += "  " + FormatBytes(row.bytes_done);
  }
  if (row.rate_bytes_per_s.value_or(0) > 0) {
    line += "  " + FormatBytes(*row.rate_bytes_per_s) + "/s";
  }
  if (row.eta_s.has_value()) line += "  ETA " + FormatSeconds(*row.eta_s);
  return line;
}

std::string ProgressView::Update(const CacheRow& row, absl::Time now) {
  const auto found = rows_.find(row.worker_id);
  const bool changed = found == rows_.end() || found->second.status != row.status ||
                       found->second.stage != row.stage;
  rows_[row.worker_id] = row;
  if (live_) return Redraw();
  absl::Time& printed_at = printed_at_[row.worker_id];
  if (!changed && now - printed_at < kPlainInterval) return "";
  printed_at = now;
  return FormatProgressLine(row, 0) + "\n";
}

std::string ProgressView::Redraw() {
  size_t width = 0;
  for (const auto& [id, row] : rows_) width = std::max(width, row.worker_name.size());
  std::string out;
  if (lines_drawn_ > 0) out += "\x1b[" + std::to_string(lines_drawn_) + "A";
  for (const auto& [id, row] : rows_) out += "\x1b[2K" + FormatProgressLine(row, width) + "\n";
  lines_drawn_ = rows_.size();
  return out;
}

bool ProgressView::Settled() const {
  return !rows_.empty() && std::all_of(rows_.begin(), rows_.end(),
                                       [](const auto& x) { return SettledRow(x.second); });
}

bool ProgressView::AnyNotReady() const {
  return std::any_of(rows_.begin(), rows_.end(),
                     [](const auto& x) { return x.second.status != "ready"; });
}

std::string ProgressView::Failures() const {
  std::string out;
  for (const auto& [id, row] : rows_) {
    if (row.status != "failed" && !LeftOut(row)) continue;
    out += (out.empty() ? "" : "\n") + Printable(row.worker_name) + ": " + row.error_code + ": " +
           Printable(row.error_message);
  }
  return out;
}

}  // namespace bunker::ctl
