#include "agent/commands/stage_bar.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/converters.h"

namespace bunker::agent {
namespace {
constexpr size_t kBarWidth = 24;
constexpr double kMib = 1 << 20;
}  // namespace

std::string FormatStage(const std::string& stage, uint64_t bytes_done, uint64_t bytes_total,
                        absl::Duration spent) {
  std::string text = absl::StrFormat("%-10s", stage);
  if (bytes_total == 0) return text;
  const double done = static_cast<double>(std::min(bytes_done, bytes_total));
  const double share = done / static_cast<double>(bytes_total);
  const auto filled = static_cast<size_t>(share * kBarWidth);
  absl::StrAppendFormat(&text, " [%s%s] %3d %%  %.1f of %.1f MiB", std::string(filled, '#'),
                        std::string(kBarWidth - filled, '.'), static_cast<int>(share * 100),
                        done / kMib, static_cast<double>(bytes_total) / kMib);
  const double seconds = absl::ToDoubleSeconds(spent);
  if (seconds > 0.2) absl::StrAppendFormat(&text, "  %.1f MiB/s", done / kMib / seconds);
  return text;
}

void StageBar::Enter(const std::string& stage) {
  MutexLock lock(mutex_);
  stage_ = stage;
  done_ = total_ = 0;
  began_ = absl::Now();
  if (quiet_) return;
  if (live_) {
    Draw();
  } else {
    std::fprintf(stderr, "%s\n", stage.c_str());
  }
}

void StageBar::Bytes(uint64_t done, uint64_t total) {
  MutexLock lock(mutex_);
  done_ = done;
  total_ = total;
  if (live_ && !quiet_) Draw();
}

void StageBar::Draw() {
  const std::string text = FormatStage(stage_, done_, total_, absl::Now() - began_);
  std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void StageBar::Clear() {
  MutexLock lock(mutex_);
  if (drawn_) std::fprintf(stderr, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace bunker::agent
