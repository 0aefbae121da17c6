#include "controller/model/quota.h"

#include "common/base/log.h"

namespace bunker::controller {

QuotaUsage& QuotaUsage::operator+=(const QuotaUsage& other) {
  bunkers += other.bunkers;
  persistent += other.persistent;
  cpu_millicores += other.cpu_millicores;
  memory_mb += other.memory_mb;
  disk_mb += other.disk_mb;
  gpus += other.gpus;
  return *this;
}

QuotaUsage& QuotaUsage::operator-=(const QuotaUsage& other) {
  BUNKER_CHECK(bunkers >= other.bunkers && persistent >= other.persistent &&
               cpu_millicores >= other.cpu_millicores && memory_mb >= other.memory_mb &&
               disk_mb >= other.disk_mb && gpus >= other.gpus);
  bunkers -= other.bunkers;
  persistent -= other.persistent;
  cpu_millicores -= other.cpu_millicores;
  memory_mb -= other.memory_mb;
  disk_mb -= other.disk_mb;
  gpus -= other.gpus;
  return *this;
}

QuotaUsage QuotaUsage::Times(uint64_t count) const {
  return {bunkers * count,   persistent * count, cpu_millicores * count,
          memory_mb * count, disk_mb * count,    gpus * count};
}

QuotaUsage CountOf(const Bunker& bunker) {
  QuotaUsage usage;
  if (!bunker.live()) return usage;
  usage.disk_mb = bunker.disk_mb;
  if (bunker.halted) return usage;
  usage.bunkers = 1;
  usage.persistent = bunker.lifecycle_mode == LifecycleMode::kPersistent ? 1 : 0;
  usage.cpu_millicores = bunker.cpu_millicores;
  usage.memory_mb = bunker.memory_mb;
  return usage;
}

}  // namespace bunker::controller
