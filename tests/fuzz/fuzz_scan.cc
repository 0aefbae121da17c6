// What scans read: package databases of images, advisories, vectors, versions, and what external
// scanners print. The first byte says which.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/scan/findings_reader.h"
#include "agent/scan/package_list.h"
#include "agent/scan/rpm_database.h"
#include "agent/scan/rpm_header.h"
#include "agent/scan/scan_limits.h"
#include "agent/scan/text_databases.h"
#include "common/base/log.h"
#include "common/sbom/cyclonedx.h"
#include "common/sbom/ecosystem.h"
#include "common/version/version.h"
#include "controller/scan/advisories.h"
#include "controller/scan/cvss.h"
#include "controller/scan/matcher.h"

namespace {

using bunker::VersionScheme;
using bunker::agent::PackageList;

// Whatever was read can be named, listed and matched.
void Use(PackageList& list) {
  bunker::scan::v1::ScanOutput output;
  list.MoveTo(output.mutable_inventory());
  BUNKER_CHECK(static_cast<size_t>(output.inventory().packages_size()) <=
               bunker::agent::kMaxPackages);
  for (const auto& package : output.inventory().packages()) {
    BUNKER_CHECK(!package.name().empty() && !package.version().empty());
    BUNKER_CHECK(bunker::PurlOf(output.inventory().distribution(), package).rfind("pkg:", 0) == 0);
  }
  (void)bunker::CycloneDxOf({"image", "", absl::UnixEpoch()}, output.inventory());
}

void Advisory(const std::string& text) {
  bunker::controller::AdvisorySet set;
  if (!set.Add(text).ok()) return;
  bunker::scan::v1::ScanOutput output;
  output.mutable_inventory()->mutable_distribution()->set_id("debian");
  output.mutable_inventory()->mutable_distribution()->set_version_id("12");
  for (const auto kind : {bunker::scan::v1::Package::DEB, bunker::scan::v1::Package::PYPI,
                          bunker::scan::v1::Package::NPM}) {
    auto* package = output.mutable_inventory()->add_packages();
    package->set_kind(kind);
    package->set_name("x");
    package->set_version("1.0.0");
  }
  (void)bunker::controller::MatchInventory(&set, "", &output);
}

// The two halves of the text against each other: an order must be one both ways.
void Versions(std::string_view text, uint8_t scheme) {
  const size_t tab = std::min(text.find('\t'), text.size());
  const std::string_view a = text.substr(0, tab);
  const std::string_view b = text.substr(std::min(tab + 1, text.size()));
  const auto order = bunker::CompareVersions(static_cast<VersionScheme>(scheme % 5), a, b);
  const auto back = bunker::CompareVersions(static_cast<VersionScheme>(scheme % 5), b, a);
  BUNKER_CHECK(order.has_value() == back.has_value());
  if (order) BUNKER_CHECK((*order > 0) == (*back < 0) && (*order < 0) == (*back > 0));
}

void Vector(std::string_view text) {
  const auto score = bunker::controller::CvssBaseScore(text);
  if (score) BUNKER_CHECK(*score >= 0 && *score <= 10);
}

void Findings(const std::string& text, uint8_t which) {
  bunker::scan::v1::Inventory inventory;
  auto* package = inventory.add_packages();
  package->set_kind(bunker::scan::v1::Package::DEB);
  package->set_name("x");
  if (which % 3 == 0) (void)bunker::agent::ReadTrivy(text);
  if (which % 3 == 1) (void)bunker::agent::ReadGrype(text);
  if (which % 3 == 2) (void)bunker::agent::ReadDebsecan(text, inventory);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto variant = static_cast<uint8_t>(data[0] / 11);
  PackageList list;
  switch (data[0] % 11) {
    case 0:
      bunker::agent::ReadDpkgStatus(text, variant % 2 == 1, &list);
      break;
    case 1:
      bunker::agent::ReadApkInstalled(text, &list);
      break;
    case 2:
      bunker::agent::ReadRpmHeader(text, &list).IgnoreError();
      break;
    case 3:
      bunker::agent::ReadRpmDatabase(std::string(text), &list).IgnoreError();
      break;
    case 4:
      bunker::agent::ReadPythonMetadata(text, "x", &list);
      break;
    case 5:
      bunker::agent::ReadNpmPackage(text, "x", &list);
      break;
    case 6:
      (void)bunker::agent::ReadOsRelease(text);
      break;
    case 7:
      Advisory(std::string(text));
      break;
    case 8:
      Vector(text);
      break;
    case 9:
      Versions(text, variant);
      break;
    default:
      Findings(std::string(text), variant);
  }
  Use(list);
  return 0;
}
