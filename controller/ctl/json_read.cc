#include "controller/ctl/json_read.h"

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/utf8.h"
#include "controller/ctl/format.h"
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

// False, with the place added to `path`, where something in `value` is no text.
bool AllText(const Json& value, std::string* path) {
  if (value.is_string()) return IsUtf8(value.get_ref<const std::string&>());
  if (!value.is_structured()) return true;
  size_t index = 0;
  for (const auto& [key, part] : value.items()) {
    std::string below;
    const bool named = value.is_object();
    if (named && !IsUtf8(key)) {
      *path = ToValidUtf8(key);
      return false;
    }
    if (!AllText(part, &below)) {
      const bool dot = !below.empty() && below.front() != '[';
      *path = (named ? key : "[" + std::to_string(index) + "]") + (dot ? "." : "") + below;
      return false;
    }
    ++index;
  }
  return true;
}

}  // namespace

std::string NotUtf8At(const Json& value) {
  std::string path;
  AllText(value, &path);
  return path;
}

std::string TextAt(const Json& value, const std::string& key) {
  const Json* found = Find(value, key);
  return found == nullptr ? "" : Spell(*found);
}

std::string JoinedAt(const Json& value, const std::string& key, const std::string& between) {
  const Json* found = Find(value, key);
  std::string joined;
  if (found == nullptr || !found->is_array()) return joined;
  for (const Json& part : *found) joined += (joined.empty() ? "" : between) + Spell(part);
  return joined;
}

std::string AgeAt(const Json& value, const std::string& key) {
  const std::string text = TextAt(value, key);
  absl::Time at;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &at, &error)) return text;
  return FormatAge(absl::ToDoubleSeconds(absl::Now() - at));
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
