#include "agent/scan/findings_reader.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "agent/scan/scan_limits.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {

using nlohmann::json;
using scan::v1::Finding;
using scan::v1::Package;

constexpr size_t kMaxFindings = 50'000;
constexpr size_t kMaxSummaryBytes = 300;

absl::Status NotUnderstood(const char* scanner) {
  return absl::InvalidArgumentError(std::string("the answer of ") + scanner +
                                    " is not in the form that it is known to have");
}

const json* Member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string Text(const json& object, const char* key) {
  const json* member = Member(object, key);
  if (member == nullptr || !member->is_string()) return "";
  const std::string& text = member->get_ref<const std::string&>();
  return text.size() <= kMaxFieldBytes ? text : "";
}

std::string Summary(const json& object, const char* key) {
  const json* member = Member(object, key);
  if (member == nullptr || !member->is_string()) return "";
  std::string text = member->get_ref<const std::string&>().substr(0, kMaxSummaryBytes);
  while (!text.empty() && !IsUtf8(text)) text.pop_back();
  return text;
}

// The words of all scanners → ours; what none of them says is unknown.
std::string SeverityOf(std::string word) {
  for (char& c : word) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  for (const char* known : {"critical", "high", "medium", "low", "none"}) {
    if (word == known) return word;
  }
  return word == "negligible" ? "low" : "unknown";
}

Package::Kind KindOf(const std::string& purl, const std::string& type) {
  const std::string_view head = std::string_view(purl).substr(0, purl.find('/'));
  if (head == "pkg:deb" || type == "deb" || type == "debian" || type == "ubuntu")
    return Package::DEB;
  if (head == "pkg:apk" || type == "apk" || type == "alpine") return Package::APK;
  if (head == "pkg:rpm" || type == "rpm") return Package::RPM;
  if (head == "pkg:pypi" || type == "python" || type == "python-pkg") return Package::PYPI;
  if (head == "pkg:npm" || type == "npm" || type == "node-pkg") return Package::NPM;
  return Package::KIND_UNSPECIFIED;
}

absl::Status Add(Finding finding, const char* scanner, std::vector<Finding>* findings) {
  if (finding.id().empty() || finding.package().name().empty()) return NotUnderstood(scanner);
  if (findings->size() >= kMaxFindings)
    return absl::ResourceExhaustedError(std::string(scanner) + " finds too much to be taken in");
  findings->push_back(std::move(finding));
  return absl::OkStatus();
}

absl::Status ReadTrivyResult(const json& result, std::vector<Finding>* findings) {
  const json* list = Member(result, "Vulnerabilities");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return NotUnderstood("trivy");
  for (const json& item : *list) {
    Finding finding;
    finding.set_id(Text(item, "VulnerabilityID"));
    finding.set_severity(SeverityOf(Text(item, "Severity")));
    finding.set_fixed_version(Text(item, "FixedVersion"));
    finding.set_summary(Summary(item, "Title"));
    const json* identifier = Member(item, "PkgIdentifier");
    Package* package = finding.mutable_package();
    package->set_kind(
        KindOf(identifier == nullptr ? "" : Text(*identifier, "PURL"), Text(result, "Type")));
    package->set_name(Text(item, "PkgName"));
    package->set_version(Text(item, "InstalledVersion"));
    RETURN_IF_ERROR(Add(std::move(finding), "trivy", findings));
  }
  return absl::OkStatus();
}

absl::StatusOr<json> Parse(const std::string& text, const char* scanner) {
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return NotUnderstood(scanner);
  return parsed;
}

// "CVE-2023-1234 libfoo1 (notes)".
absl::Status ReadDebsecanLine(std::string_view line,
                              const std::map<std::string, const Package*>& installed,
                              std::vector<Finding>* findings) {
  const size_t first = line.find(' ');
  if (first == line.npos) return NotUnderstood("debsecan");
  const size_t second = std::min(line.find(' ', first + 1), line.size());
  const std::string_view notes = line.substr(second);
  Finding finding;
  finding.set_id(std::string(line.substr(0, first)));
  const std::string name(line.substr(first + 1, second - first - 1));
  const auto it = installed.find(name);
  if (it == installed.end()) return NotUnderstood("debsecan");
  *finding.mutable_package() = *it->second;
  finding.set_severity("unknown");
  for (const char* word : {"high", "medium", "low"}) {
    if (notes.find(std::string(word) + " urgency") != notes.npos) finding.set_severity(word);
  }
  return Add(std::move(finding), "debsecan", findings);
}

}  // namespace

absl::StatusOr<std::vector<Finding>> ReadTrivy(const std::string& text) {
  ASSIGN_OR_RETURN(const json parsed, Parse(text, "trivy"));
  if (Member(parsed, "SchemaVersion") == nullptr) return NotUnderstood("trivy");
  std::vector<Finding> findings;
  const json* results = Member(parsed, "Results");
  if (results == nullptr) return findings;
  if (!results->is_array()) return NotUnderstood("trivy");
  for (const json& result : *results) RETURN_IF_ERROR(ReadTrivyResult(result, &findings));
  return findings;
}

absl::StatusOr<std::vector<Finding>> ReadGrype(const std::string& text) {
  ASSIGN_OR_RETURN(const json parsed, Parse(text, "grype"));
  const json* matches = Member(parsed, "matches");
  if (matches == nullptr || !matches->is_array()) return NotUnderstood("grype");
  std::vector<Finding> findings;
  for (const json& match : *matches) {
    const json* vulnerability = Member(match, "vulnerability");
    const json* artifact = Member(match, "artifact");
    if (vulnerability == nullptr || artifact == nullptr) return NotUnderstood("grype");
    Finding finding;
    finding.set_id(Text(*vulnerability, "id"));
    finding.set_severity(SeverityOf(Text(*vulnerability, "severity")));
    finding.set_summary(Summary(*vulnerability, "description"));
    if (const json* fix = Member(*vulnerability, "fix"); fix != nullptr) {
      const json* versions = Member(*fix, "versions");
      if (versions != nullptr && versions->is_array() && !versions->empty() &&
          (*versions)[0].is_string()) {
        finding.set_fixed_version((*versions)[0].get<std::string>().substr(0, kMaxFieldBytes));
      }
    }
    Package* package = finding.mutable_package();
    package->set_kind(KindOf(Text(*artifact, "purl"), Text(*artifact, "type")));
    package->set_name(Text(*artifact, "name"));
    package->set_version(Text(*artifact, "version"));
    RETURN_IF_ERROR(Add(std::move(finding), "grype", &findings));
  }
  return findings;
}

absl::StatusOr<std::vector<Finding>> ReadDebsecan(const std::string& text,
                                                  const scan::v1::Inventory& inventory) {
  std::map<std::string, const Package*> installed;
  for (const Package& package : inventory.packages()) {
    if (package.kind() == Package::DEB) installed[package.name()] = &package;
  }
  std::vector<Finding> findings;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.empty()) RETURN_IF_ERROR(ReadDebsecanLine(line, installed, &findings));
  }
  return findings;
}

}  // namespace bunker::agent
