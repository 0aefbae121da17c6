#include "controller/model/image.h"

namespace bunker::controller {

std::vector<std::string> Image::args(const std::vector<std::string>& in_place_of_cmd) const {
  std::vector<std::string> all;
  if (resolved) all = resolved->config.entrypoint;
  const std::vector<std::string>& rest =
      in_place_of_cmd.empty() && resolved ? resolved->config.cmd : in_place_of_cmd;
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

std::string Image::url() const {
  if (!resolved) return "";
  if (resolved->repository.empty()) return resolved->manifest_digest;
  return resolved->repository + "@" + resolved->manifest_digest;
}

}  // namespace bunker::controller
