// Bakes stacks of tar streams for tests, in this process (the child's own code, unconfined) or by
// the whole of Bake().
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/bake/bake_types.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_bake/image_reader.h"

namespace bunker::agent::test {

std::string Gzip(const std::string& data, int level = 1);
std::string Zstd(const std::string& data, int window_log = 0);

class Baker {
 public:
  // Adds a layer on top; `layer` is the tar stream.
  Baker& Layer(const std::string& tar, Compression compression = Compression::kNone);
  // Adds a blob as it is; digest and diff id are taken from `tar` and the blob.
  Baker& Blob(const std::string& blob, const std::string& tar, Compression compression);

  // In this process. The file is at image().
  absl::StatusOr<BakeSummary> Run(uint32_t size_mib = 1024);
  // Through a confined child.
  absl::StatusOr<BakeSummary> RunConfined(uint32_t size_mib = 1024);

  std::string image() const { return folder_.File("image"); }
  std::string tree() const { return folder_.File("tree"); }
  std::vector<LayerInput>& layers() { return layers_; }
  BakeLimits& limits() { return limits_; }
  BakeOptions Options(uint32_t size_mib) const;

 private:
  bunker::test::TempDir folder_;
  std::vector<LayerInput> layers_;
  BakeLimits limits_;
};

// Bakes, expects success and a clean check, and reads the image back.
std::map<std::string, ImageEntry> BakeAndRead(const std::vector<std::string>& tars);

}  // namespace bunker::agent::test
