#include "controller/model/image.h"

namespace bunker::controller {

std::vector<std::string> Image::args() const {
  if (!resolved) return {};
  std::vector<std::string> all = resolved->config.entrypoint;
  all.insert(all.end(), resolved->config.cmd.begin(), resolved->config.cmd.end());
  return all;
}

std::string Image::url() const {
  if (!resolved) return "";
  if (resolved->repository.empty()) return resolved->manifest_digest;
  return resolved->repository + "@" + resolved->manifest_digest;
}

}  // namespace bunker::controller
