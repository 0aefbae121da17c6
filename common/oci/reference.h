// Image references as people write them: [host[:port]/]repository[:tag][@digest].
//
// Thread-safe: a value and free functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/oci/digest.h"

namespace bunker::oci {

struct Reference {
  std::string host;        // "docker.io", "127.0.0.1:5000", "[::1]:5000": the name, normalised
  std::string repository;  // "library/debian"
  std::string tag;         // "" where only a digest is given; "latest" where neither is
  Digest digest;           // wins over the tag

  // Where requests for `host` go: "registry-1.docker.io" for Docker Hub, else `host`.
  std::string Endpoint() const;
  // "docker.io/library/debian": what `repository@digest` starts with.
  std::string Name() const { return host + "/" + repository; }
  // The whole reference, normalised; parses to itself.
  std::string ToString() const;
};

// A first component is a host where it has a dot or a colon, is `localhost` or in brackets;
// otherwise the image is Docker Hub's, and a single name there is in `library/`. Errors are
// kInvalidArgument and name the remedy. At most 512 characters.
absl::StatusOr<Reference> ParseReference(std::string_view text);

// `host[:port]` or `[v6][:port]`, checked and lower-cased. kInvalidArgument.
absl::StatusOr<std::string> ParseRegistryHost(std::string_view text);

// The same from what people have at hand: a scheme, a trailing slash and the API's /v1/ or /v2/ are
// left out. kInvalidArgument for a path that is more than that, and for user names in it.
absl::StatusOr<std::string> RegistryHostOf(std::string_view url);

}  // namespace bunker::oci
