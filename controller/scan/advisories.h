// Advisories in OSV's format, held by ecosystem and package name.
//
// AdvisorySet: build it on one thread, then it is immutable and may be shared.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bunker::controller {

// What one advisory says, whichever packages it names.
struct Advisory {
  std::string id;
  std::vector<std::string> aliases;
  std::string summary;
};

struct RangeEvent {
  enum class Kind { kIntroduced, kFixed, kLastAffected, kLimit };
  Kind kind = Kind::kIntroduced;
  std::string version;  // "0" with kIntroduced: from the beginning
};

// One package that an advisory names. Ranges in Git commits are left out: nothing that is
// installed tells a commit.
struct AffectedPackage {
  std::shared_ptr<const Advisory> advisory;
  std::string ecosystem;  // "Debian:12"
  std::string name;
  std::set<std::string> versions;
  std::vector<std::vector<RangeEvent>> ranges;
  std::string severity;  // of the contract's words
  double score = 0;      // 0: none known
};

class AdvisorySet {
 public:
  // Takes one OSV record in; a withdrawn one counts for nothing. An error where it is none.
  absl::Status Add(std::string_view json);

  // Those of a name, in any release of an ecosystem; `ecosystem` as packages have it.
  std::vector<const AffectedPackage*> Find(const std::string& ecosystem,
                                           const std::string& name) const;

  // Whether anything is known of that ecosystem, of that very release where it names one.
  bool Covers(const std::string& ecosystem) const;

  size_t size() const { return advisories_; }

  // What could not be read; "" = nothing. What is known may then be too little.
  std::string problem;
  // Of all content: equal folders have equal digests.
  std::string digest;

 private:
  std::map<std::pair<std::string, std::string>, std::vector<AffectedPackage>> affected_;
  std::set<std::string> ecosystems_;
  size_t advisories_ = 0;
};

// Whether an advisory for `advisory` ("Debian", "Debian:12", "Ubuntu:22.04:LTS") speaks of packages
// of `package` ("Debian:12", "Ubuntu:22.04").
bool EcosystemCovers(const std::string& advisory, const std::string& package);

// Everything below `folder` that ends in .json. Slow; an error where the folder can't be read or is
// beyond all bounds. A file that is no OSV record is a problem of the set.
absl::StatusOr<std::shared_ptr<const AdvisorySet>> LoadAdvisories(const std::string& folder);

// Changes whenever a file comes, goes or is written to. Much cheaper than reading them.
absl::StatusOr<std::string> FolderStamp(const std::string& folder);

}  // namespace bunker::controller
