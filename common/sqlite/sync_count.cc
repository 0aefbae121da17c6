#include "common/sqlite/sync_count.h"

#include <sqlite3.h>

#include <atomic>

#include "common/base/mutex.h"

namespace bunker::sqlite {
namespace {

std::atomic<uint64_t> syncs{0};

// The system's methods of a file, and a copy whose xSync counts. All files of one process have the
// same, as long as they lock the same way.
struct Counted {
  const sqlite3_io_methods* original = nullptr;
  sqlite3_io_methods methods = {};
};

Counted& TheCounted() {
  static Counted counted;
  return counted;
}

int CountingSync(sqlite3_file* file, int flags) {
  syncs.fetch_add(1, std::memory_order_relaxed);
  return TheCounted().original->xSync(file, flags);
}

void Watch(sqlite3* connection, int which) {
  sqlite3_file* file = nullptr;
  if (sqlite3_file_control(connection, "main", which, &file) != SQLITE_OK || file == nullptr ||
      file->pMethods == nullptr)
    return;
  static Mutex mutex;
  MutexLock lock(mutex);
  Counted& counted = TheCounted();
  if (counted.original == nullptr) {
    counted.original = file->pMethods;
    counted.methods = *file->pMethods;
    counted.methods.xSync = CountingSync;
  }
  if (file->pMethods == counted.original) file->pMethods = &counted.methods;
}

}  // namespace

uint64_t SyncCount() {
  return syncs.load(std::memory_order_relaxed);
}

void WatchSyncs(sqlite3* connection) {
  Watch(connection, SQLITE_FCNTL_FILE_POINTER);
  Watch(connection, SQLITE_FCNTL_JOURNAL_POINTER);
}

}  // namespace bunker::sqlite
