#include "controller/scan/advisories.h"

#include <algorithm>
#include <optional>

#include "common/base/status_macros.h"
#include "common/sbom/ecosystem.h"
#include "controller/scan/cvss.h"
#include "nlohmann/json.hpp"

namespace bunker::controller {
namespace {

using nlohmann::json;

constexpr size_t kMaxTextBytes = 300;
constexpr size_t kMaxAliases = 100;

const json* Member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string Text(const json& object, const char* key) {
  const json* member = Member(object, key);
  return member != nullptr && member->is_string() ? member->get<std::string>() : "";
}

std::string_view Base(std::string_view ecosystem) {
  return ecosystem.substr(0, ecosystem.find(':'));
}

std::string NormalName(const std::string& ecosystem, const std::string& name) {
  return Base(ecosystem) == "PyPI" ? NormalPythonName(name) : name;
}

absl::Status NotOsv(const char* what) {
  return absl::InvalidArgumentError(std::string("not an OSV record: ") + what);
}

struct Rating {
  std::string severity = "unknown";
  double score = 0;
};

// From vectors, the newest version that can be computed, or a word that stands in their place.
std::optional<Rating> RatingOf(const json* list) {
  std::optional<Rating> best;
  int best_version = 0;
  if (list == nullptr || !list->is_array()) return best;
  for (const json& one : *list) {
    const std::string type = Text(one, "type");
    const std::string text = Text(one, "score");
    const int version = type == "CVSS_V3" ? 3 : type == "CVSS_V2" ? 2 : 1;
    if (version <= best_version) continue;
    if (version == 1) {
      if (SeverityOfWord(text) == "unknown") continue;
      best = Rating{SeverityOfWord(text), 0};
    } else {
      const std::optional<double> score = CvssBaseScore(text);
      if (!score) continue;
      best = Rating{SeverityOfScore(*score), *score};
    }
    best_version = version;
  }
  return best;
}

std::optional<Rating> RatingByWord(const json* object) {
  if (object == nullptr) return std::nullopt;
  for (const char* key : {"severity", "urgency"}) {
    const std::string severity = SeverityOfWord(Text(*object, key));
    if (severity != "unknown") return Rating{severity, 0};
  }
  return std::nullopt;
}

// What is said of the package goes before what is said of the whole.
Rating RatingOf(const json& record, const json& affected) {
  for (const std::optional<Rating>& one :
       {RatingOf(Member(affected, "severity")), RatingOf(Member(record, "severity")),
        RatingByWord(Member(affected, "ecosystem_specific")),
        RatingByWord(Member(affected, "database_specific")),
        RatingByWord(Member(record, "database_specific"))}) {
    if (one) return *one;
  }
  return {};
}

absl::StatusOr<std::vector<RangeEvent>> EventsOf(const json& range) {
  std::vector<RangeEvent> events;
  const json* list = Member(range, "events");
  if (list == nullptr || !list->is_array()) return NotOsv("a range without events");
  constexpr std::pair<const char*, RangeEvent::Kind> kKinds[] = {
      {"introduced", RangeEvent::Kind::kIntroduced},
      {"fixed", RangeEvent::Kind::kFixed},
      {"last_affected", RangeEvent::Kind::kLastAffected},
      {"limit", RangeEvent::Kind::kLimit}};
  for (const json& event : *list) {
    for (const auto& [key, kind] : kKinds) {
      const std::string version = Text(event, key);
      if (!version.empty()) events.push_back({kind, version});
    }
  }
  return events;
}

absl::StatusOr<AffectedPackage> AffectedOf(const json& record, const json& affected) {
  AffectedPackage package;
  const json* named = Member(affected, "package");
  if (named == nullptr) return package;  // Git alone
  package.ecosystem = Text(*named, "ecosystem");
  package.name = NormalName(package.ecosystem, Text(*named, "name"));
  if (package.ecosystem.empty() || package.name.empty()) return NotOsv("a package without a name");
  if (const json* versions = Member(affected, "versions"); versions != nullptr) {
    if (!versions->is_array()) return NotOsv("versions that are no list");
    for (const json& version : *versions) {
      if (version.is_string()) package.versions.insert(version.get<std::string>());
    }
  }
  if (const json* ranges = Member(affected, "ranges"); ranges != nullptr) {
    if (!ranges->is_array()) return NotOsv("ranges that are no list");
    for (const json& range : *ranges) {
      if (Text(range, "type") == "GIT") continue;
      ASSIGN_OR_RETURN(std::vector<RangeEvent> events, EventsOf(range));
      package.ranges.push_back(std::move(events));
    }
  }
  const Rating rating = RatingOf(record, affected);
  package.severity = rating.severity;
  package.score = rating.score;
  return package;
}

std::shared_ptr<const Advisory> AdvisoryOf(const json& record) {
  auto advisory = std::make_shared<Advisory>();
  advisory->id = Text(record, "id");
  for (const char* key : {"aliases", "upstream"}) {
    const json* list = Member(record, key);
    if (list == nullptr || !list->is_array()) continue;
    for (const json& alias : *list) {
      if (alias.is_string() && advisory->aliases.size() < kMaxAliases)
        advisory->aliases.push_back(alias.get<std::string>().substr(0, kMaxTextBytes));
    }
  }
  const std::string summary = Text(record, "summary");
  advisory->summary =
      (summary.empty() ? Text(record, "details") : summary).substr(0, kMaxTextBytes);
  return advisory;
}

}  // namespace

bool EcosystemCovers(const std::string& advisory, const std::string& package) {
  if (advisory == package) return true;
  if (advisory == Base(package)) return true;  // of no release: of all
  return advisory.size() > package.size() && advisory[package.size()] == ':' &&
         advisory.compare(0, package.size(), package) == 0 && package.find(':') != package.npos;
}

absl::Status AdvisorySet::Add(std::string_view text) {
  const json record = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return NotOsv("no JSON object");
  if (Text(record, "id").empty() || Text(record, "modified").empty())
    return NotOsv("it has no id and time of modification");
  if (Member(record, "withdrawn") != nullptr) return absl::OkStatus();
  const json* affected = Member(record, "affected");
  if (affected == nullptr) return absl::OkStatus();
  if (!affected->is_array()) return NotOsv("affected is no list");
  const std::shared_ptr<const Advisory> advisory = AdvisoryOf(record);
  std::vector<AffectedPackage> packages;
  for (const json& one : *affected) {
    ASSIGN_OR_RETURN(AffectedPackage package, AffectedOf(record, one));
    if (package.name.empty()) continue;
    package.advisory = advisory;
    packages.push_back(std::move(package));
  }
  for (AffectedPackage& package : packages) {
    ecosystems_.insert(package.ecosystem);
    affected_[{std::string(Base(package.ecosystem)), package.name}].push_back(std::move(package));
  }
  ++advisories_;
  return absl::OkStatus();
}

std::vector<const AffectedPackage*> AdvisorySet::Find(const std::string& ecosystem,
                                                      const std::string& name) const {
  std::vector<const AffectedPackage*> found;
  const auto it = affected_.find({std::string(Base(ecosystem)), name});
  if (it == affected_.end()) return found;
  for (const AffectedPackage& package : it->second) {
    if (EcosystemCovers(package.ecosystem, ecosystem)) found.push_back(&package);
  }
  return found;
}

bool AdvisorySet::Covers(const std::string& ecosystem) const {
  return std::any_of(ecosystems_.begin(), ecosystems_.end(),
                     [&](const std::string& known) { return EcosystemCovers(known, ecosystem); });
}

}  // namespace bunker::controller
