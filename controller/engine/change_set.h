// What one batch changed, as committed. Rows are immutable and may be kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "controller/model/account.h"
#include "controller/model/bunker.h"
#include "controller/model/cache_entry.h"
#include "controller/model/group.h"
#include "controller/model/idempotency.h"
#include "controller/model/image.h"
#include "controller/model/link_rows.h"
#include "controller/model/scan_report.h"
#include "controller/model/worker.h"

namespace bunker::controller {

// A row as it was at one moment. Never changes, so it may cross threads.
template <typename T>
using RowPtr = std::shared_ptr<const T>;

// `before` null: new. `after` null: removed.
template <typename T>
struct Change {
  std::string id;
  RowPtr<T> before;
  RowPtr<T> after;
};

struct ChangeSet {
  uint64_t sequence = 0;  // of the batch; rises by one
  std::vector<Change<Image>> images;
  std::vector<Change<Group>> groups;
  std::vector<Change<Worker>> workers;
  std::vector<Change<CacheEntry>> cache_entries;  // id: "<image id>/<worker id>"
  std::vector<Change<Bunker>> bunkers;
  std::vector<Change<ScanReport>> scan_reports;
  std::vector<Change<ApiKey>> api_keys;
  std::vector<Change<User>> users;
  std::vector<Change<Tenant>> tenants;
  std::vector<Change<UserGroup>> user_groups;
  // The rows that workers are to have; id: "<worker id>/<row name>". For the link.
  std::vector<Change<DesiredRow>> desired;
};

}  // namespace bunker::controller
