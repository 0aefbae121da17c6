#include "common/oci/json_guard.h"

#include "nlohmann/json.hpp"

namespace bunker::oci {
namespace {
constexpr int kMaxDepth = 32;

// Counted before the parser builds anything: 4 MiB of brackets would cost hundreds of MiB.
bool TooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    else if ((c == '{' || c == '[') && ++depth > kMaxDepth) return true;
    else if (c == '}' || c == ']') --depth;
  }
  return false;
}
}  // namespace

absl::StatusOr<nlohmann::json> ParseObject(std::string_view text, std::string_view what) {
  if (TooDeep(text))
    return absl::InvalidArgumentError(std::string(what) + " is nested deeper than 32 levels");
  nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr,
                                              /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object())
    return absl::InvalidArgumentError(std::string(what) + " is not a JSON object");
  return json;
}

const nlohmann::json* MemberOf(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string StringOf(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = MemberOf(object, key);
  return member != nullptr && member->is_string() ? member->get<std::string>() : "";
}

std::optional<uint64_t> SizeOf(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = MemberOf(object, key);
  if (member == nullptr || !member->is_number_integer()) return std::nullopt;
  if (member->is_number_unsigned()) {
    const auto value = member->get<uint64_t>();
    if (value > (uint64_t{1} << 62)) return std::nullopt;
    return value;
  }
  return std::nullopt;  // negative
}

}  // namespace bunker::oci
