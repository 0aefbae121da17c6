// Collects what the readers of package data find, within bounds.
//
// Not thread-safe.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bunker/scan/v1/inventory.pb.h"

namespace bunker::agent {

class PackageList {
 public:
  // Left out, as a problem, where a name or version is missing, too long or not printable.
  void Add(scan::v1::Package package);

  // What a distribution's package manager put there itself: metadata of language packages at these
  // paths (without the leading slash) is told of by the distribution's own package.
  void Own(std::string_view path);
  bool Owns(const std::string& path) const { return owned_.count(path) > 0; }

  // The list is not all there is, and why. The first kMaxProblems are kept.
  void AddProblem(const std::string& problem);

  // Whether any package database was there, even an empty one.
  void SawDatabase() { saw_database_ = true; }
  bool saw_database() const { return saw_database_; }

  // Sorted, each once.
  void MoveTo(scan::v1::Inventory* inventory);

 private:
  using Key = std::tuple<int, std::string, std::string, std::string>;

  std::map<Key, scan::v1::Package> packages_;
  std::set<std::string> owned_;
  std::vector<std::string> problems_;
  bool saw_database_ = false;
  bool full_ = false;
};

// Whether a package's own metadata may lie at a path of that name.
bool IsMetadataPath(std::string_view path);

}  // namespace bunker::agent
