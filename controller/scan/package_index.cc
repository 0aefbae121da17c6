#include "controller/scan/package_index.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "common/sbom/ecosystem.h"
#include "common/version/version.h"

namespace bunker::controller {
namespace {

using scan::v1::Package;

bool IsOfEcosystem(const std::string& ecosystem, const std::string& wanted) {
  if (wanted.empty() || ecosystem == wanted) return true;
  return ecosystem.size() > wanted.size() && ecosystem[wanted.size()] == ':' &&
         ecosystem.compare(0, wanted.size(), wanted) == 0;
}

}  // namespace

void PackageIndex::Forget(uint32_t image) {
  for (const uint32_t id : packages_of_image_[image]) packages_[id].images.erase(image);
  packages_of_image_[image].clear();
}

void PackageIndex::Put(const std::string& image_id, const scan::v1::Inventory& inventory) {
  MutexLock lock(mutex_);
  const auto [it, added] =
      number_of_image_.emplace(image_id, static_cast<uint32_t>(images_.size()));
  if (added) {
    images_.push_back(image_id);
    packages_of_image_.emplace_back();
  }
  const uint32_t image = it->second;
  Forget(image);
  for (const Package& package : inventory.packages()) {
    const std::string ecosystem = EcosystemOf(inventory.distribution(), package.kind());
    const std::string key = ecosystem + '\n' + package.name() + '\n' + package.version() + '\n' +
                            package.source_name() + '\n' + package.source_version();
    const auto [found, is_new] =
        id_of_package_.emplace(key, static_cast<uint32_t>(packages_.size()));
    const uint32_t id = found->second;
    if (is_new) {
      packages_.push_back({package.kind(),
                           ecosystem,
                           package.name(),
                           package.version(),
                           package.source_name(),
                           package.source_version(),
                           {}});
      packages_of_name_[package.name()].insert(id);
      if (!package.source_name().empty()) packages_of_name_[package.source_name()].insert(id);
      if (package.kind() == Package::PYPI)
        packages_of_name_[NormalPythonName(package.name())].insert(id);
    }
    if (packages_[id].images.insert(image).second) packages_of_image_[image].push_back(id);
  }
}

std::vector<PackageHit> PackageIndex::Find(const PackageQuery& query) const {
  std::vector<PackageHit> hits;
  MutexLock lock(mutex_);
  const auto named = packages_of_name_.find(query.name);
  if (named == packages_of_name_.end()) return hits;
  for (const uint32_t id : named->second) {
    const Known& known = packages_[id];
    if (!IsOfEcosystem(known.ecosystem, query.ecosystem)) continue;
    if (!query.below.empty()) {
      // Asked for by the source's name: its version is meant.
      const bool by_source = known.name != query.name && !known.source_version.empty() &&
                             known.source_name == query.name;
      const auto order = CompareVersions(
          SchemeOf(known.kind), by_source ? known.source_version : known.version, query.below);
      if (!order || *order >= 0) continue;
    }
    for (const uint32_t image : known.images) {
      hits.push_back(
          {images_[image], known.ecosystem, known.name, known.version, known.source_name});
    }
  }
  std::sort(hits.begin(), hits.end(), [](const PackageHit& a, const PackageHit& b) {
    return std::tie(a.image_id, a.name, a.version, a.ecosystem) <
           std::tie(b.image_id, b.name, b.version, b.ecosystem);
  });
  return hits;
}

size_t PackageIndex::images() const {
  MutexLock lock(mutex_);
  return images_.size();
}

}  // namespace bunker::controller
