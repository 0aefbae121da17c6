#include "agent/scan/package_list.h"

#include <utility>

#include "agent/scan/scan_limits.h"
#include "common/base/utf8.h"

namespace bunker::agent {
namespace {

bool IsField(const std::string& text, bool required) {
  if (text.empty()) return !required;
  if (text.size() > kMaxFieldBytes || !IsUtf8(text)) return false;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) return false;
  }
  return true;
}

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

void PackageList::Add(scan::v1::Package package) {
  const bool whole = IsField(package.name(), true) && IsField(package.version(), true) &&
                     IsField(package.arch(), false) && IsField(package.source_name(), false) &&
                     IsField(package.source_version(), false);
  if (!whole) {
    const bool named = IsField(package.name(), true);
    AddProblem("a package's record has no usable name and version" +
               (named ? ": " + package.name() : std::string()));
    return;
  }
  if (packages_.size() >= kMaxPackages) {
    if (!full_) AddProblem("there are more than " + std::to_string(kMaxPackages) + " packages");
    full_ = true;
    return;
  }
  Key key{package.kind(), package.name(), package.version(), package.arch()};
  packages_.emplace(std::move(key), std::move(package));
}

void PackageList::Own(std::string_view path) {
  while (!path.empty() && (path[0] == '/' || path.substr(0, 2) == "./"))
    path.remove_prefix(path[0] == '/' ? 1 : 2);
  if (!IsMetadataPath(path) || owned_.size() >= kMaxOwnedPaths) return;
  owned_.emplace(path);
}

void PackageList::AddProblem(const std::string& problem) {
  if (problems_.size() < kMaxProblems) problems_.push_back(problem);
}

void PackageList::MoveTo(scan::v1::Inventory* inventory) {
  for (auto& [key, package] : packages_) *inventory->add_packages() = std::move(package);
  for (std::string& problem : problems_) inventory->add_problems(std::move(problem));
  packages_.clear();
  problems_.clear();
}

bool IsMetadataPath(std::string_view path) {
  return EndsWith(path, ".dist-info/METADATA") || EndsWith(path, ".egg-info/PKG-INFO") ||
         EndsWith(path, ".egg-info") || EndsWith(path, "/package.json");
}

}  // namespace bunker::agent
