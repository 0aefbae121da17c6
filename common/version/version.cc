#include "common/version/version.h"

namespace bunker {

std::optional<int> CompareVersions(VersionScheme scheme, std::string_view a, std::string_view b) {
  if (a.size() > kMaxVersionBytes || b.size() > kMaxVersionBytes) return std::nullopt;
  switch (scheme) {
    case VersionScheme::kDebian:
      return CompareDebian(a, b);
    case VersionScheme::kRpm:
      return CompareRpm(a, b);
    case VersionScheme::kPep440:
      return ComparePep440(a, b);
    case VersionScheme::kSemver:
      return CompareSemver(a, b);
    case VersionScheme::kApk:
      return CompareApk(a, b);
  }
  return std::nullopt;
}

}  // namespace bunker
