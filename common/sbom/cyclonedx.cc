#include "common/sbom/cyclonedx.h"

#include <string_view>
#include <utility>

#include "common/base/sha256.h"
#include "common/sbom/ecosystem.h"
#include "nlohmann/json.hpp"

namespace bunker {
namespace {

using nlohmann::json;

constexpr char kToolVersion[] = "1";

// urn:uuid of the content (version 8: made as one likes), so that equal documents have equal names.
std::string SerialNumber(const std::string& seed) {
  std::string hex = Sha256Hex(seed).substr(0, 32);
  hex[12] = '8';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) % 4];
  return "urn:uuid:" + hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
         hex.substr(16, 4) + "-" + hex.substr(20);
}

void AddProperty(json& component, const char* name, const std::string& value) {
  if (!value.empty()) component["properties"].push_back({{"name", name}, {"value", value}});
}

json ComponentOf(const scan::v1::Distribution& distribution, const scan::v1::Package& package) {
  const std::string purl = PurlOf(distribution, package);
  json component = {{"type", "library"},
                    {"bom-ref", purl},
                    {"name", package.name()},
                    {"version", package.version()},
                    {"purl", purl}};
  AddProperty(component, "bunker:ecosystem", EcosystemOf(distribution, package.kind()));
  AddProperty(component, "bunker:source_name", package.source_name());
  AddProperty(component, "bunker:source_version", package.source_version());
  return component;
}

json MetadataOf(const SbomSubject& subject, const scan::v1::Inventory& inventory) {
  json image = {{"type", "container"}, {"bom-ref", "image"}, {"name", subject.name}};
  if (!subject.version.empty()) image["version"] = subject.version;
  json metadata = {
      {"timestamp", absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", subject.made_at, absl::UTCTimeZone())},
      {"tools",
       {{"components",
         json::array({{{"type", "application"}, {"name", "bunker"}, {"version", kToolVersion}}})}}},
      {"component", std::move(image)}};
  for (const std::string& problem : inventory.problems())
    AddProperty(metadata, "bunker:incomplete", problem);
  return metadata;
}

}  // namespace

std::string CycloneDxOf(const SbomSubject& subject, const scan::v1::Inventory& inventory) {
  const scan::v1::Distribution& distribution = inventory.distribution();
  json components = json::array();
  if (!distribution.id().empty()) {
    json system = {{"type", "operating-system"},
                   {"bom-ref", "distribution"},
                   {"name", distribution.id()},
                   {"version", distribution.version_id()}};
    if (!distribution.name().empty()) system["description"] = distribution.name();
    components.push_back(std::move(system));
  }
  for (const scan::v1::Package& package : inventory.packages())
    components.push_back(ComponentOf(distribution, package));
  json document = {{"$schema", "http://cyclonedx.org/schema/bom-1.5.schema.json"},
                   {"bomFormat", "CycloneDX"},
                   {"specVersion", "1.5"},
                   {"version", 1},
                   {"metadata", MetadataOf(subject, inventory)},
                   {"components", std::move(components)}};
  constexpr auto kReplace = json::error_handler_t::replace;
  document["serialNumber"] = SerialNumber(document.dump(-1, ' ', false, kReplace));
  return document.dump(-1, ' ', false, kReplace);
}

}  // namespace bunker
