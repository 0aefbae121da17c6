// CPU architectures: ours (X86_64, AARCH64) and the names images use for them.
// Thread-safe: free functions without state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/oci/manifest.h"

namespace bunker::oci {

// "X86_64" → "amd64", "AARCH64" → "arm64"; kInvalidArgument for others.
absl::StatusOr<std::string> GoArchitecture(std::string_view arch);
// "amd64" → "X86_64", "arm64" → "AARCH64"; "" for others.
std::string ArchOfGoArchitecture(std::string_view architecture);

// The entry of `index` for linux on `arch`: an exact match first, then one without a platform
// (as some layouts have; whoever takes it checks the image config's architecture). Nothing
// matching: kNotFound with the reason ARCH_UNAVAILABLE, naming what is offered.
absl::StatusOr<Descriptor> ChoosePlatform(const Index& index, std::string_view arch);

// What an index offers, as "linux/amd64, linux/arm64/v8"; attestations are left out.
std::string OfferedPlatforms(const Index& index);

}  // namespace bunker::oci
