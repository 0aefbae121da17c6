#include "controller/model/worker.h"

#include "common/base/log.h"

namespace bunker::controller {

Resources& Resources::operator+=(const Resources& other) {
  cpu_millicores += other.cpu_millicores;
  memory_mb += other.memory_mb;
  disk_mb += other.disk_mb;
  return *this;
}

Resources& Resources::operator-=(const Resources& other) {
  BUNKER_CHECK(cpu_millicores >= other.cpu_millicores && memory_mb >= other.memory_mb &&
               disk_mb >= other.disk_mb);
  cpu_millicores -= other.cpu_millicores;
  memory_mb -= other.memory_mb;
  disk_mb -= other.disk_mb;
  return *this;
}

std::map<std::string, std::string> Worker::labels() const {
  std::map<std::string, std::string> all = facts.labels;
  for (const auto& [label, value] : token_labels) all[label] = value;
  return all;
}

}  // namespace bunker::controller
