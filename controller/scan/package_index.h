// Which images hold which packages: for "who has log4j below 2.17".
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "bunker/scan/v1/inventory.pb.h"
#include "common/base/mutex.h"

namespace bunker::controller {

struct PackageQuery {
  std::string name;       // of the package, or of the source that it was built from
  std::string below;      // "" = any version; else older ones alone, by the ecosystem's rules
  std::string ecosystem;  // "" = any; "Debian", or with its release: "Debian:12"
};

struct PackageHit {
  std::string image_id;
  std::string ecosystem;
  std::string name;
  std::string version;
  std::string source_name;
};

class PackageIndex {
 public:
  // Replaces what is known of the image.
  void Put(const std::string& image_id, const scan::v1::Inventory& inventory);

  // By image id, then name and version. A `below` that is no version of a package's ecosystem
  // leaves the package out.
  std::vector<PackageHit> Find(const PackageQuery& query) const;

  size_t images() const;

 private:
  struct Known {
    scan::v1::Package::Kind kind = scan::v1::Package::KIND_UNSPECIFIED;
    std::string ecosystem;
    std::string name;
    std::string version;
    std::string source_name;
    std::string source_version;
    std::set<uint32_t> images;
  };

  void Forget(uint32_t image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  // Images of one base hold the same packages: each is kept once.
  std::map<std::string, uint32_t> id_of_package_ ABSL_GUARDED_BY(mutex_);
  std::vector<Known> packages_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::set<uint32_t>> packages_of_name_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, uint32_t> number_of_image_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> images_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<uint32_t>> packages_of_image_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bunker::controller
