#include "controller/scan/matcher.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "common/sbom/ecosystem.h"

namespace bunker::controller {
namespace {

using scan::v1::Finding;
using scan::v1::Package;
using scan::v1::ScanOutput;

constexpr size_t kMaxFindings = 50'000;
constexpr size_t kMaxUnclearNamed = 3;

constexpr const char* kRanks[] = {"critical", "high", "medium", "low", "none", "unknown"};

int RankOf(const std::string& severity) {
  for (int i = 0; i < 5; ++i) {
    if (severity == kRanks[i]) return i;
  }
  return 5;
}

class RangeCheck {
 public:
  RangeCheck(std::string_view version, VersionScheme scheme) : version_(version), scheme_(scheme) {}

  // Nothing where a version in it can't be compared.
  std::optional<bool> Holds(std::vector<RangeEvent> events) {
    for (const RangeEvent& event : events) {
      if (!Order(event)) return std::nullopt;
    }
    if (!IsWithinLimits(events)) return false;
    // In the order of versions; what was fixed and came back at once is affected.
    std::stable_sort(events.begin(), events.end(),
                     [this](const RangeEvent& a, const RangeEvent& b) {
                       const int order = CompareEvents(a, b);
                       return order != 0 ? order < 0
                                         : b.kind == RangeEvent::Kind::kIntroduced &&
                                               a.kind != RangeEvent::Kind::kIntroduced;
                     });
    bool affected = false;
    for (const RangeEvent& event : events) {
      const int order = *Order(event);  // of the event to the version
      if (event.kind == RangeEvent::Kind::kIntroduced && order <= 0) affected = true;
      if (event.kind == RangeEvent::Kind::kFixed && order <= 0) affected = false;
      if (event.kind == RangeEvent::Kind::kLastAffected && order < 0) affected = false;
    }
    return affected;
  }

  // The oldest fix that is newer than the version.
  std::string FixIn(const std::vector<RangeEvent>& events) const {
    const RangeEvent* best = nullptr;
    for (const RangeEvent& event : events) {
      if (event.kind != RangeEvent::Kind::kFixed || *Order(event) <= 0) continue;
      if (best == nullptr || CompareEvents(event, *best) < 0) best = &event;
    }
    return best == nullptr ? "" : best->version;
  }

 private:
  static bool IsBeginning(const RangeEvent& event) {
    return event.kind == RangeEvent::Kind::kIntroduced && event.version == "0";
  }

  std::optional<int> Order(const RangeEvent& event) const {
    if (IsBeginning(event)) return -1;
    if (event.kind == RangeEvent::Kind::kLimit && event.version == "*") return 1;
    return CompareVersions(scheme_, event.version, version_);
  }

  // REQUIRES: both can be compared.
  int CompareEvents(const RangeEvent& a, const RangeEvent& b) const {
    if (IsBeginning(a) || IsBeginning(b)) return IsBeginning(b) - IsBeginning(a);
    return CompareVersions(scheme_, a.version, b.version).value_or(0);
  }

  bool IsWithinLimits(const std::vector<RangeEvent>& events) const {
    bool any = false;
    for (const RangeEvent& event : events) {
      if (event.kind != RangeEvent::Kind::kLimit) continue;
      any = true;
      if (*Order(event) > 0) return true;
    }
    return !any;
  }

  const std::string_view version_;
  const VersionScheme scheme_;
};

class Matcher {
 public:
  Matcher(const AdvisorySet& advisories, ScanOutput* output)
      : advisories_(advisories), output_(*output) {}

  ScanMatch Run() {
    ScanMatch match;
    match.problem = advisories_.problem;
    std::map<std::string, bool> covered;
    for (const Package& package : output_.inventory().packages()) {
      const std::string ecosystem = EcosystemOf(output_.inventory().distribution(), package.kind());
      const auto [known, is_new] = covered.emplace(ecosystem, false);
      if (is_new) known->second = advisories_.Covers(ecosystem);
      if (known->second) {
        Look(package, ecosystem);
      } else {
        ++match.without_data[ecosystem];
      }
    }
    AddUnclear(&match);
    output_.clear_findings();
    for (Finding& finding : found_) *output_.add_findings() = std::move(finding);
    return match;
  }

 private:
  void Look(const Package& package, const std::string& ecosystem) {
    const AdvisoryName known = AdvisoryNameOf(package);
    const VersionScheme scheme = SchemeOf(package.kind());
    // One advisory may name the package twice; what is affected by either is affected.
    std::map<std::string, bool> seen;
    for (const AffectedPackage* affected : advisories_.Find(ecosystem, known.name)) {
      std::string fixed;
      const Affects affects = IsAffected(*affected, known.version, scheme, &fixed);
      if (affects == Affects::kUnclear) unclear_.insert(known.name + " " + known.version);
      if (affects != Affects::kYes || !seen.emplace(affected->advisory->id, true).second) continue;
      if (found_.size() < kMaxFindings) Add(*affected, package, fixed);
    }
  }

  void Add(const AffectedPackage& affected, const Package& package, const std::string& fixed) {
    Finding finding;
    finding.set_id(affected.advisory->id);
    for (const std::string& alias : affected.advisory->aliases) finding.add_aliases(alias);
    finding.set_severity(affected.severity);
    finding.set_score(affected.score);
    *finding.mutable_package() = package;
    finding.set_fixed_version(fixed);
    finding.set_summary(affected.advisory->summary);
    found_.push_back(std::move(finding));
  }

  void AddUnclear(ScanMatch* match) {
    if (unclear_.empty()) return;
    std::string text = "versions that can't be compared: ";
    size_t named = 0;
    for (const std::string& one : unclear_) {
      if (++named > kMaxUnclearNamed) break;
      text += (named == 1 ? "" : ", ") + one;
    }
    if (unclear_.size() > kMaxUnclearNamed) text += ", …";
    match->problem += (match->problem.empty() ? "" : "; ") + text;
  }

  const AdvisorySet& advisories_;
  ScanOutput& output_;
  std::vector<Finding> found_;
  std::set<std::string> unclear_;
};

// The worst first.
void SortFindings(ScanOutput* output) {
  const auto key = [](const Finding& one) {
    return std::make_tuple(RankOf(one.severity()), one.id(), one.package().name(),
                           one.package().version(), one.package().arch());
  };
  std::sort(output->mutable_findings()->begin(), output->mutable_findings()->end(),
            [&](const Finding& a, const Finding& b) { return key(a) < key(b); });
}

// A vulnerability counts once, however many packages have it, by its worst rating. What is unknown
// may be anything: what is known to be high alone is worse.
std::map<std::string, uint32_t> CountsOf(const ScanOutput& output) {
  constexpr int kWeights[] = {0, 1, 3, 4, 5, 2};  // by rank
  std::map<std::string, int> worst;
  for (const Finding& finding : output.findings()) {
    const int rank = RankOf(finding.severity());
    const auto [it, added] = worst.emplace(finding.id(), rank);
    if (!added && kWeights[rank] < kWeights[it->second]) it->second = rank;
  }
  std::map<std::string, uint32_t> counts;
  for (const auto& [id, rank] : worst) ++counts[kRanks[rank]];
  return counts;
}

// What debsecan does not look at.
void AddUndecided(const ScanOutput& output, ScanMatch* match) {
  if (output.scanner() != "debsecan") return;
  for (const Package& package : output.inventory().packages()) {
    if (package.kind() == Package::DEB) continue;
    ++match->without_data[EcosystemOf(output.inventory().distribution(), package.kind())];
  }
}

}  // namespace

Affects IsAffected(const AffectedPackage& package, std::string_view version, VersionScheme scheme,
                   std::string* fixed) {
  if (fixed != nullptr) fixed->clear();
  RangeCheck check(version, scheme);
  bool unclear = false;
  bool affected = package.versions.count(std::string(version)) > 0;
  for (const std::vector<RangeEvent>& range : package.ranges) {
    const std::optional<bool> holds = check.Holds(range);
    unclear = unclear || !holds;
    if (!holds || !(*holds || affected)) continue;
    affected = true;
    if (fixed != nullptr && fixed->empty()) *fixed = check.FixIn(range);
  }
  if (affected) return Affects::kYes;
  return unclear ? Affects::kUnclear : Affects::kNo;
}

ScanMatch MatchInventory(const AdvisorySet* advisories, const std::string& why,
                         ScanOutput* output) {
  ScanMatch match;
  if (output->decided()) {
    AddUndecided(*output, &match);
  } else if (advisories == nullptr) {
    output->clear_findings();
    match.problem = why;
  } else {
    match = Matcher(*advisories, output).Run();
    match.advisories_digest = advisories->digest;
  }
  SortFindings(output);
  for (const std::string& problem : output->inventory().problems())
    match.problem += (match.problem.empty() ? "" : "; ") + problem;
  match.packages = static_cast<uint32_t>(output->inventory().packages_size());
  match.counts = CountsOf(*output);
  return match;
}

}  // namespace bunker::controller
