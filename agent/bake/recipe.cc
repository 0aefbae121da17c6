#include "absl/strings/str_cat.h"
#include "agent/bake/bake_types.h"
#include "agent/bake/data_layout.h"
#include "common/base/sha256.h"

namespace bunker::agent {

std::string RecipeDigest(const std::vector<std::string>& diff_ids) {
  std::string text = absl::StrCat("bunker bake recipe\nwriter ", kBakeWriterVersion, "\nblock ",
                                  kBlockBytes, "\nslack ", kBlocksPerSlack, "\nchunk ", kChunkBytes,
                                  "\nfirst ", kFirstDataBlock, "\n");
  for (const std::string& diff_id : diff_ids) absl::StrAppend(&text, "layer ", diff_id, "\n");
  return "sha256:" + Sha256Hex(text);
}

}  // namespace bunker::agent
