#include "controller/model/worker.h"

#include "common/base/log.h"
#include "common/base/rng.h"

namespace bunker::controller {

std::string NewJoinToken() {
  constexpr size_t kSecretCharacters = 43;  // 62^43 > 2^256
  return "wtk_" + RandomBase62(kSecretCharacters);
}

bool IsWorkerName(std::string_view name) {
  constexpr size_t kMaxNameBytes = 128;
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!alnum && (i == 0 || (c != '.' && c != '_' && c != '-'))) return false;
  }
  return true;
}

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
