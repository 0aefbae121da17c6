// An availability group: every image in it belongs on every worker in it.
#pragma once

#include <set>
#include <string>

#include "absl/time/time.h"
#include "controller/model/scope.h"

namespace bunker::controller {

struct Group {
  std::string id;  // ag_…
  std::string name;
  std::string description;
  Ownership ownership;
  bool auto_images = false;  // every active image of the group's own scope is a member
  std::set<std::string> image_ids;
  std::set<std::string> worker_ids;
  absl::Time created_at;
  absl::Time updated_at;
};

}  // namespace bunker::controller
