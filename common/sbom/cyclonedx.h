// The bill of materials of an image, as CycloneDX 1.5 JSON. The same input gives the same bytes.
// Thread-safe: a free function without state.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "bunker/scan/v1/inventory.pb.h"

namespace bunker {

struct SbomSubject {
  std::string name;     // of the image
  std::string version;  // its digest; may be empty
  absl::Time made_at;
};

std::string CycloneDxOf(const SbomSubject& subject, const scan::v1::Inventory& inventory);

}  // namespace bunker
