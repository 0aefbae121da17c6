// Internal to agent/pull: from documents to a ResolvedImage, wherever the documents come from.
// Thread-safe: free functions.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/pull/pull_types.h"
#include "common/oci/manifest.h"

namespace bunker::agent {

struct Document {
  std::string body;
  std::string content_type;  // "" where the place does not say
  oci::Digest digest;        // of the body
};

// The places documents are read from; both verify digest and size of what they return.
struct DocumentReader {
  std::function<absl::StatusOr<Document>(const oci::Descriptor&)> manifest;
  std::function<absl::StatusOr<std::string>(const oci::Descriptor&)> config;
};

// Follows `top` through at most one nested index to the manifest for linux on `arch`, and reads
// its config. `subject` is the image as the user knows it. Fills everything but repository and
// source. A `pinned` digest that the manifest does not have is DIGEST_MISMATCH.
absl::StatusOr<ResolvedImage> ResolveDocument(Document top, const std::string& arch,
                                              const oci::Digest& pinned, std::string_view subject,
                                              const DocumentReader& reader);

// ARCH_UNAVAILABLE where the config names another platform than linux on `arch`.
absl::Status CheckPlatform(const oci::ImageConfig& config, const std::string& arch);

}  // namespace bunker::agent
