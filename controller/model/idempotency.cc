#include "controller/model/idempotency.h"

#include "common/base/sha256.h"

namespace bunker::controller {

std::string IdempotencyRecord::id() const {
  return tenant_id + "/" + Sha256Hex(key);
}

}  // namespace bunker::controller
