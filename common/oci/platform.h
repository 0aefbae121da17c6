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

// Whether an image's architecture is the wanted one; "x86_64" and "aarch64" are names for
// amd64 and arm64 that some builders write.
bool IsArchitecture(std::string_view offered, std::string_view wanted);

// The entry of `index` for linux on `arch`, the same on every worker whatever its CPU: the
// architecture's baseline, which every CPU of it runs, that is no variant, or v1 of amd64, or v8
// of arm64. Builds for newer CPUs alone (amd64/v3, arm64/v9) don't match. Of several the first.
// Where none matches, an entry without a platform (as some layouts have; whoever takes it checks
// the image config's architecture). Attestations are never chosen. Nothing: kNotFound with the
// reason ARCH_UNAVAILABLE, naming what is offered.
absl::StatusOr<Descriptor> ChoosePlatform(const Index& index, std::string_view arch);

// What an index offers, as "linux/amd64, linux/arm64/v8"; attestations are left out.
std::string OfferedPlatforms(const Index& index);

}  // namespace bunker::oci
