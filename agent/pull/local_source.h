// Internal to agent/pull: images that lie as files under the operator's folder: a root file
// system as a tarball, an OCI layout (folder or archive), a `docker save` archive.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/pull/image_source.h"
#include "common/oci/digest.h"

namespace bunker::agent {

// Opens nothing yet: Resolve() does, and the same open files serve Fetch().
// `config` must outlive the source.
std::unique_ptr<ImageSource> OpenLocalSource(const PullConfig& config, const SourceSpec& spec,
                                             oci::Digest pinned, const std::string& arch);

}  // namespace bunker::agent
