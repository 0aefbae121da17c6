#include "controller/ctl/json_read.h"

#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

const Json* Find(const Json& value, const std::string& path) {
  const size_t dot = path.find('.');
  if (!value.is_object()) return nullptr;
  const auto found = value.find(path.substr(0, dot));
  if (found == value.end()) return nullptr;
  return dot == std::string::npos ? &*found : Find(*found, path.substr(dot + 1));
}

std::string Spell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  if (!value.is_array()) return "";
  std::string joined;
  for (const Json& part : value) joined += (joined.empty() ? "" : ",") + Spell(part);
  return joined;
}

}  // namespace

std::string TextAt(const Json& value, const std::string& key) {
  const Json* found = Find(value, key);
  return found == nullptr ? "" : Spell(*found);
}

std::optional<double> NumberAt(const Json& value, const std::string& key) {
  const Json* found = Find(value, key);
  if (found == nullptr || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<uint64_t> UnsignedAt(const Json& value, const std::string& key) {
  const Json* found = Find(value, key);
  if (found == nullptr || !found->is_number_unsigned()) return std::nullopt;
  return found->get<uint64_t>();
}

bool TrueAt(const Json& value, const std::string& key) {
  const Json* found = Find(value, key);
  return found != nullptr && found->is_boolean() && found->get<bool>();
}

}  // namespace bunker::ctl
