// How images are named by references: what an image can be asked for by, and what fits.
// Thread-safe: free functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "controller/model/image.h"

namespace bunker::controller {

struct Repository {
  std::string host;  // "docker.io"; "" for a tar source
  std::string path;  // "library/r-base"
};

// Of the reference that was registered and, where that differs, of what it was resolved to.
std::vector<Repository> RepositoriesOf(const Image& image);

// Whether the reference follows a tag. One with a digest does not.
bool HasTag(const Image& image);

// The registry's host in the image's reference; "" for a tar source.
std::string RegistryHostOf(const Image& image);

// "sha256:" and 12 to 64 hex digits.
bool IsDigestPrefix(std::string_view text);

}  // namespace bunker::controller
