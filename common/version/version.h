// Which of two versions of a package is newer, by the rules of the package manager it belongs to:
// dpkg's, RPM's, PEP 440's, semantic versioning as npm takes it, and apk's.
//
// Thread-safe: free functions without state. What they get may come from anyone: time and memory
// are linear in the texts, which may have at most kMaxVersionBytes.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace bunker {

inline constexpr size_t kMaxVersionBytes = 512;

enum class VersionScheme { kDebian, kRpm, kPep440, kSemver, kApk };

// Below, equal to or above 0 as `a` is older than, the same as or newer than `b`; nothing where
// one of them is no version of that scheme, or too long.
std::optional<int> CompareVersions(VersionScheme scheme, std::string_view a, std::string_view b);

// One per scheme, each in a file of its own.
std::optional<int> CompareDebian(std::string_view a, std::string_view b);
std::optional<int> CompareRpm(std::string_view a, std::string_view b);
std::optional<int> ComparePep440(std::string_view a, std::string_view b);
std::optional<int> CompareSemver(std::string_view a, std::string_view b);
std::optional<int> CompareApk(std::string_view a, std::string_view b);

}  // namespace bunker
