// Reads of a JSON answer that never throw: a missing or foreign value is the fallback. The server
// is newer or older than this program at times; a listing must not die of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nlohmann/json_fwd.hpp"

namespace bunker::ctl {

// Texts as they are, numbers and booleans spelled out, lists of these joined by ",". "" for null
// and anything else. `key` may be a path: "capacity.memory_mb".
std::string TextAt(const nlohmann::json& value, const std::string& key);
// A list's texts with `between` between them.
std::string JoinedAt(const nlohmann::json& value, const std::string& key,
                     const std::string& between);
// A time as how long it is ago; as it stands where it is none.
std::string AgeAt(const nlohmann::json& value, const std::string& key);
std::optional<double> NumberAt(const nlohmann::json& value, const std::string& key);
std::optional<uint64_t> UnsignedAt(const nlohmann::json& value, const std::string& key);
bool TrueAt(const nlohmann::json& value, const std::string& key);

// Where `value` holds bytes that are no UTF-8, as "command[2]"; "" where nowhere. JSON can't carry
// them: they would arrive as other bytes.
std::string NotUtf8At(const nlohmann::json& value);

}  // namespace bunker::ctl
