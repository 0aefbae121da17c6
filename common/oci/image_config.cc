#include "common/oci/image_config.h"

#include <algorithm>

#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/json_guard.h"
#include "common/oci/manifest.h"
#include "nlohmann/json.hpp"

namespace bunker::oci {
namespace {
constexpr size_t kMaxListEntries = 4096;

absl::Status Corrupt(std::string_view why) {
  return ReasonError(
      absl::StatusCode::kInvalidArgument, "LAYER_CORRUPT",
      "the image config is not valid: " + std::string(why) + "; rebuild and push the image");
}

absl::StatusOr<std::vector<std::string>> ListOf(const nlohmann::json& object, const char* key) {
  std::vector<std::string> list;
  const nlohmann::json* member = MemberOf(object, key);
  if (member == nullptr) return list;
  if (!member->is_array() || member->size() > kMaxListEntries)
    return Corrupt(std::string(key) + " is not a list of at most 4096 strings");
  for (const nlohmann::json& entry : *member) {
    if (!entry.is_string()) return Corrupt(std::string(key) + " holds something that is no string");
    list.push_back(entry.get<std::string>());
    // A NUL would cut the string wherever it meets a system call.
    if (list.back().find('\0') != std::string::npos)
      return Corrupt(std::string(key) + " holds a NUL");
  }
  return list;
}

absl::StatusOr<std::vector<Digest>> DiffIds(const nlohmann::json& json) {
  const nlohmann::json* rootfs = MemberOf(json, "rootfs");
  const nlohmann::json* ids = rootfs != nullptr ? MemberOf(*rootfs, "diff_ids") : nullptr;
  if (ids == nullptr) return std::vector<Digest>();  // an image without layers
  if (!ids->is_array() || ids->size() > kMaxLayers)
    return Corrupt("rootfs.diff_ids is not a list of at most 256 digests");
  std::vector<Digest> digests;
  for (const nlohmann::json& id : *ids) {
    auto digest = Digest::Parse(id.is_string() ? id.get<std::string>() : "");
    if (!digest.ok()) return Corrupt("rootfs.diff_ids: " + std::string(digest.status().message()));
    digests.push_back(*std::move(digest));
  }
  return digests;
}
}  // namespace

std::vector<std::string> ImageConfig::Args() const {
  std::vector<std::string> args = entrypoint;
  args.insert(args.end(), cmd.begin(), cmd.end());
  return args;
}

absl::StatusOr<ImageConfig> ParseImageConfig(std::string_view body) {
  if (body.size() > kMaxConfigBytes) return Corrupt("it is larger than 4 MiB");
  auto json = ParseObject(body, "it");
  if (!json.ok()) return Corrupt(ToStd(json.status().message()));
  ImageConfig config;
  config.os = StringOf(*json, "os");
  config.architecture = StringOf(*json, "architecture");
  ASSIGN_OR_RETURN(config.diff_ids, DiffIds(*json));
  const nlohmann::json* run = MemberOf(*json, "config");
  if (run == nullptr) return config;
  if (!run->is_object()) return Corrupt("config is not an object");
  ASSIGN_OR_RETURN(config.entrypoint, ListOf(*run, "Entrypoint"));
  ASSIGN_OR_RETURN(config.cmd, ListOf(*run, "Cmd"));
  ASSIGN_OR_RETURN(config.env, ListOf(*run, "Env"));
  config.working_dir = StringOf(*run, "WorkingDir");
  config.user = StringOf(*run, "User");
  if ((config.working_dir + config.user).find('\0') != std::string::npos)
    return Corrupt("WorkingDir or User holds a NUL");
  if (const auto* ports = MemberOf(*run, "ExposedPorts")) {
    if (!ports->is_object() || ports->size() > kMaxListEntries)
      return Corrupt("ExposedPorts is not an object of at most 4096 ports");
    for (const auto& [port, unused] : ports->items()) config.exposed_ports.push_back(port);
    std::sort(config.exposed_ports.begin(), config.exposed_ports.end());
  }
  return config;
}

}  // namespace bunker::oci
