// Bounds on what a scan takes from an image. They are far above what images hold.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bunker::agent {

inline constexpr size_t kMaxPackages = 20'000;
inline constexpr size_t kMaxFieldBytes = 512;          // a name or a version
inline constexpr size_t kMaxDatabaseBytes = 64 << 20;  // dpkg's, apk's
inline constexpr size_t kMaxRpmDatabaseBytes = 512 << 20;
inline constexpr size_t kMaxMetadataBytes = 1 << 20;  // of one Python or npm package
inline constexpr size_t kMaxOwnedPaths = 200'000;
inline constexpr size_t kMaxProblems = 20;
inline constexpr uint64_t kMaxPathsWalked = 5'000'000;
inline constexpr int kMaxDepth = 64;

}  // namespace bunker::agent
