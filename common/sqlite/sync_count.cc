#include "common/sqlite/sync_count.h"

#include <sqlite3.h>

#include <atomic>

#include "common/base/mutex.h"

namespace bunker::sqlite {
namespace {

std::atomic<uint64_t> syncs{0};

// The methods of a file, and a copy whose xSync counts. A database and its log have different ones,
// since they lock in different ways; all databases of a process have the same two.
struct Counted {
  const sqlite3_io_methods* original = nullptr;
  sqlite3_io_methods methods = {};
};
Counted counted[4];

int CountingSync(sqlite3_file* file, int flags) {
  syncs.fetch_add(1, std::memory_order_relaxed);
  for (const Counted& one : counted) {
    if (file->pMethods == &one.methods) return one.original->xSync(file, flags);
  }
  return SQLITE_IOERR_FSYNC;  // can't be: only those have this method
}

void Watch(sqlite3* connection, int which) {
  sqlite3_file* file = nullptr;
  if (sqlite3_file_control(connection, "main", which, &file) != SQLITE_OK || file == nullptr ||
      file->pMethods == nullptr)
    return;
  static Mutex mutex;
  MutexLock lock(mutex);
  for (Counted& one : counted) {
    if (file->pMethods == &one.methods) return;
    if (one.original == nullptr) {
      one.methods = *file->pMethods;
      one.methods.xSync = CountingSync;
      one.original = file->pMethods;
    }
    if (file->pMethods == one.original) {
      file->pMethods = &one.methods;
      return;
    }
  }
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
