#include "common/oci/json_guard.h"

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace bunker::oci {
namespace {
constexpr int kMaxDepth = 32;
constexpr size_t kMaxValues = 30'000;

// Counted before the parser builds anything: 4 MiB of brackets would cost hundreds of MiB. "" for
// text within the bounds.
std::string_view Excess(std::string_view text) {
  int depth = 0;
  size_t values = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
      continue;
    }
    if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return "is nested deeper than 32 levels";
      if (++values > kMaxValues) return "holds more than 30,000 values";
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',' && ++values > kMaxValues) {
      return "holds more than 30,000 values";
    }
  }
  return "";
}

// Notes whether an object names a member twice, while the parser runs.
class DuplicateFinder {
 public:
  bool operator()(int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) open_.emplace_back();
    if (event == Event::object_end && !open_.empty()) open_.pop_back();
    if (event == Event::key && !open_.empty() && parsed.is_string())
      found_ = !open_.back().insert(parsed.get<std::string>()).second || found_;
    return true;
  }
  bool found() const { return found_; }

 private:
  std::vector<std::set<std::string>> open_;  // the names so far of each object that is open
  bool found_ = false;
};
}  // namespace

absl::StatusOr<nlohmann::json> ParseObject(std::string_view text, std::string_view what) {
  if (const std::string_view excess = Excess(text); !excess.empty())
    return absl::InvalidArgumentError(std::string(what) + " " + std::string(excess));
  DuplicateFinder duplicates;
  nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), std::ref(duplicates),
                                              /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object())
    return absl::InvalidArgumentError(std::string(what) + " is not a JSON object");
  if (duplicates.found())
    return absl::InvalidArgumentError(std::string(what) + " names a member twice");
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
