// The image config: what an image says about how it is run.
// Thread-safe: a value and a free function.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/oci/digest.h"

namespace bunker::oci {

// Strings are the image author's: they never reach an argv, a path or a template on the host.
struct ImageConfig {
  std::string os;
  std::string architecture;  // "amd64"; "" where the config does not say
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::vector<std::string> env;  // "NAME=value"
  std::string working_dir;
  std::string user;
  std::vector<std::string> exposed_ports;  // "8080/tcp", sorted
  std::vector<Digest> diff_ids;            // of the uncompressed layers, base first

  // entrypoint and cmd in one list.
  std::vector<std::string> Args() const;
};

// Docker's and OCI's. kInvalidArgument with LAYER_CORRUPT: no valid rootfs.diff_ids, or members of
// the wrong type.
absl::StatusOr<ImageConfig> ParseImageConfig(std::string_view body);

}  // namespace bunker::oci
