// How often SQLite asked the disk to sync, over all databases that are watched: the number that
// group commit is about.
//
// SyncCount() is thread-safe; WatchSyncs() belongs to the connection's thread.
#pragma once

#include <cstdint>

struct sqlite3;

namespace bunker::sqlite {

uint64_t SyncCount();

// Counts the syncs of the connection's database and, once it is open, its log from now on.
// Repeatable.
void WatchSyncs(sqlite3* connection);

}  // namespace bunker::sqlite
