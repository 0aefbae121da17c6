#include "controller/model/api_key.h"

#include "common/base/rng.h"

namespace bunker::controller {

std::string NewApiKeySecret() {
  return "sgk_" + RandomBase62(43);
}

}  // namespace bunker::controller
