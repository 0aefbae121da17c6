// A tarball in the operator's folder: whatever a tenant put there as `docker save` archive, OCI
// layout in a tar, or root file system.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string_view>

#include "agent/pull/layout.h"
#include "agent/pull/tar_decoder.h"
#include "agent/pull/tar_digest.h"
#include "agent/pull/tar_index.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/unique_fd.h"

namespace {

using bunker::agent::FileRange;

bool Never() {
  return false;
}

// A layer that an archive is said to hold lies in the archive.
void CheckImage(const absl::StatusOr<bunker::agent::LocalImage>& image, const FileRange& file) {
  if (!image.ok()) {
    // A reason decides whether another try may help: there is one for all that an archive can do.
    if (bunker::ReasonOf(image.status()).empty()) {
      std::fprintf(stderr, "%s\n", image.status().ToString().c_str());
      BUNKER_CHECK(false);
    }
    return;
  }
  BUNKER_CHECK(image->layers.size() == image->image.layers.size());
  for (const FileRange& layer : image->layers) {
    BUNKER_CHECK(layer.offset <= file.size_bytes);
    BUNKER_CHECK(layer.size_bytes <= file.size_bytes - layer.offset);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bunker::UniqueFd fd(memfd_create("fuzz", MFD_CLOEXEC));
  BUNKER_CHECK(fd && write(fd.get(), data, size) == static_cast<ssize_t>(size));
  const FileRange file{.fd = std::make_shared<const bunker::UniqueFd>(std::move(fd)),
                       .offset = 0,
                       .size_bytes = size,
                       .whole_file = true};
  if (bunker::agent::DetectCompression(
          std::string_view(reinterpret_cast<const char*>(data), size < 512 ? size : 512))
          .ok()) {
    (void)bunker::agent::DigestTar(file, Never);
  }
  const auto index = bunker::agent::TarIndex::Read(file, Never);
  if (!index.ok()) return 0;
  if ((*index)->Has("oci-layout") && (*index)->Has("index.json"))
    CheckImage(bunker::agent::ReadLayout(**index, "X86_64", {}, "fuzz"), file);
  if ((*index)->Has("manifest.json"))
    CheckImage(bunker::agent::ReadDockerArchive(**index, "X86_64", {}, Never), file);
  return 0;
}
