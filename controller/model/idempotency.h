// The first answer to a mutation that carried an Idempotency-Key, kept for a day.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace bunker::controller {

inline constexpr absl::Duration kIdempotencyLifetime = absl::Hours(24);

struct IdempotencyRecord {
  std::string tenant_id;
  std::string key;           // as the client gave it, ≤ 255 bytes
  std::string request_hash;  // of method, path and body; another one is a conflict
  int status = 0;            // HTTP
  std::string body;          // bytes of the answer's data
  absl::Time created_at;

  // The row's key. The client's key is hashed into it, so that any byte is fine.
  std::string id() const;
};

}  // namespace bunker::controller
