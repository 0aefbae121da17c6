// Numbered, forward-only changes of a schema, each in a transaction of its own with its number.
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "common/sqlite/database.h"

namespace bunker::sqlite {

// `migrations[i]` brings version i to i + 1; released ones never change. kFailedPrecondition where
// the file is newer than this list (an older binary must not touch it) or is some other
// application's. `application_id` marks the file (PRAGMA application_id).
absl::Status Migrate(Database& database, int32_t application_id,
                     std::span<const std::string_view> migrations);

}  // namespace bunker::sqlite
