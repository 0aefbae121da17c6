#include "controller/policy/scan_policy.h"

#include <string_view>

namespace bunker::controller {
namespace {

constexpr const char* kSeverities[] = {"critical", "high", "medium", "low", "none", "unknown"};
constexpr size_t kMaxEcosystemsNamed = 5;

uint32_t CountOf(const ScanMatch& match, const std::string& severity) {
  const auto it = match.counts.find(severity);
  return it == match.counts.end() ? 0 : it->second;
}

bool IsBetter(const ScanCandidate& one, const ScanCandidate* best) {
  if (best == nullptr) return true;
  if (one.open_scans != best->open_scans) return one.open_scans < best->open_scans;
  return one.worker_id < best->worker_id;
}

std::string Packages(uint32_t count) {
  return std::to_string(count) + (count == 1 ? " package" : " packages");
}

// "2 critical, 1 unknown", or "no known vulnerability".
std::string CountsText(const ScanMatch& match) {
  std::string text;
  for (const char* severity : kSeverities) {
    const uint32_t count = CountOf(match, severity);
    if (count == 0) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + severity;
  }
  return text.empty() ? "no known vulnerability" : text;
}

std::string WithoutDataText(const ScanMatch& match) {
  std::string text;
  size_t named = 0;
  for (const auto& [ecosystem, count] : match.without_data) {
    if (++named > kMaxEcosystemsNamed) {
      text += " and others";
      break;
    }
    text += (text.empty() ? "" : ", ") + ecosystem + " (" + Packages(count) + ")";
  }
  return text;
}

}  // namespace

ScanChoice ChooseForScan(const std::vector<ScanCandidate>& candidates, uint32_t max_open_scans) {
  const ScanCandidate* holder = nullptr;
  const ScanCandidate* maker = nullptr;
  bool coming = false;
  bool held = false;
  std::string failure;
  for (const ScanCandidate& one : candidates) {
    const CacheStatus status = one.entry == nullptr ? CacheStatus::kEvicted : one.entry->status;
    if (one.reachable && status == CacheStatus::kReady) {
      held = true;
      if (one.open_scans < max_open_scans && IsBetter(one, holder)) holder = &one;
    } else if (one.reachable &&
               (status == CacheStatus::kPending || status == CacheStatus::kBuilding)) {
      coming = true;
    } else if (status == CacheStatus::kFailed) {
      failure = one.entry->error_code + ": " + one.entry->error_message;
    } else if (one.online && one.eligible && IsBetter(one, maker)) {
      maker = &one;
    }
  }
  if (holder != nullptr) return {ScanChoice::Kind::kScan, holder->worker_id, ""};
  if (held || coming) return {};
  if (!failure.empty())
    return {ScanChoice::Kind::kFail, "", "the image could not be made on a worker: " + failure};
  if (maker != nullptr) return {ScanChoice::Kind::kBake, maker->worker_id, ""};
  return {ScanChoice::Kind::kNobody, "", ""};
}

ScanVerdict VerdictOf(const ScanMatch& match, bool unknown_fails) {
  ScanVerdict verdict;
  const bool vulnerable = CountOf(match, "critical") > 0 || CountOf(match, "high") > 0 ||
                          (unknown_fails && CountOf(match, "unknown") > 0);
  const bool complete = match.problem.empty() && match.without_data.empty();
  verdict.status = vulnerable || !complete ? ScanStatus::kFailed : ScanStatus::kPassed;
  verdict.summary = CountsText(match) + " in " + Packages(match.packages);
  if (complete) return verdict;
  verdict.summary += "; the scan is incomplete: ";
  if (!match.problem.empty()) verdict.summary += match.problem;
  if (!match.without_data.empty()) {
    verdict.summary += (match.problem.empty() ? "no advisories for " : "; no advisories for ") +
                       WithoutDataText(match);
  }
  return verdict;
}

}  // namespace bunker::controller
