// A VFS over the system's own whose writes fail on command, as a full disk's do.
#pragma once

#include <sqlite3.h>

#include <atomic>
#include <cstring>

namespace bunker {

struct FaultPlan {
  // Writes and truncations done so far, over all files.
  std::atomic<int64_t> writes{0};
  // The write with this number and every later one fails with SQLITE_FULL; negative: none does.
  std::atomic<int64_t> full_from{-1};
  std::atomic<bool> fail_sync{false};
};

inline FaultPlan& Faults() {
  static FaultPlan plan;
  return plan;
}

namespace fault_vfs {

struct File {
  sqlite3_file base;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

inline sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<File*>(file)->real(); }

inline bool NoRoom() {
  FaultPlan& plan = Faults();
  const int64_t number = plan.writes.fetch_add(1);
  const int64_t from = plan.full_from.load();
  return from >= 0 && number >= from;
}

inline int Close(sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); }
inline int Read(sqlite3_file* f, void* data, int size, sqlite3_int64 at) {
  return Real(f)->pMethods->xRead(Real(f), data, size, at);
}
inline int Write(sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
  return NoRoom() ? SQLITE_FULL : Real(f)->pMethods->xWrite(Real(f), data, size, at);
}
inline int Truncate(sqlite3_file* f, sqlite3_int64 size) {
  return NoRoom() ? SQLITE_FULL : Real(f)->pMethods->xTruncate(Real(f), size);
}
inline int Sync(sqlite3_file* f, int flags) {
  return Faults().fail_sync ? SQLITE_IOERR_FSYNC : Real(f)->pMethods->xSync(Real(f), flags);
}
inline int Size(sqlite3_file* f, sqlite3_int64* size) {
  return Real(f)->pMethods->xFileSize(Real(f), size);
}
inline int Lock(sqlite3_file* f, int lock) { return Real(f)->pMethods->xLock(Real(f), lock); }
inline int Unlock(sqlite3_file* f, int lock) { return Real(f)->pMethods->xUnlock(Real(f), lock); }
inline int Reserved(sqlite3_file* f, int* out) {
  return Real(f)->pMethods->xCheckReservedLock(Real(f), out);
}
inline int Control(sqlite3_file* f, int op, void* arg) {
  return Real(f)->pMethods->xFileControl(Real(f), op, arg);
}
inline int Sector(sqlite3_file* f) { return Real(f)->pMethods->xSectorSize(Real(f)); }
inline int Traits(sqlite3_file* f) { return Real(f)->pMethods->xDeviceCharacteristics(Real(f)); }

// Version 1: no shared memory, which a WAL in exclusive locking mode does without.
inline const sqlite3_io_methods kMethods = {
    1,    Close,  Read,     Write,   Truncate, Sync,  Size,    Lock, Unlock, Reserved,
    Control, Sector, Traits, nullptr, nullptr,  nullptr, nullptr, nullptr, nullptr};

inline int Open(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags,
                int* out_flags) {
  auto* real_vfs = static_cast<sqlite3_vfs*>(vfs->pAppData);
  const int code = real_vfs->xOpen(real_vfs, name, Real(file), flags, out_flags);
  file->pMethods = code == SQLITE_OK ? &kMethods : nullptr;
  return code;
}

}  // namespace fault_vfs

// Registers it once; its name.
inline const char* RegisterFaultVfs() {
  static sqlite3_vfs vfs;
  static const bool registered = [] {
    sqlite3_vfs* real = sqlite3_vfs_find(nullptr);
    vfs = *real;  // the other methods don't look at who they are called on
    vfs.zName = "fault";
    vfs.pNext = nullptr;
    vfs.pAppData = real;
    vfs.szOsFile = static_cast<int>(sizeof(fault_vfs::File)) + real->szOsFile;
    vfs.xOpen = fault_vfs::Open;
    return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK;
  }();
  return registered ? "fault" : nullptr;
}

}  // namespace bunker
