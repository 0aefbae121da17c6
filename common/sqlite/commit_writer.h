// The one connection that writes and checkpoints, on a thread of its own.
//
// Group commit: jobs that are waiting when the thread comes round share one transaction and one
// fsync. Each is told when it is durable, in the order of submission. SQLite before 3.51.3 can
// corrupt a WAL that two connections commit to and checkpoint at once; so only this one does.
//
// Where there is no room the transaction is rolled back whole; its jobs are then run alone, one
// transaction each, so that one that fits is not refused for another's size. Any other failure of
// a commit ends the process: what is on disk is unknown then, and memory must not run ahead.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/sqlite/database.h"

namespace bunker::sqlite {

// Thread-safe.
class CommitWriter {
 public:
  struct Options {
    size_t max_jobs_per_commit = 1024;
    int64_t checkpoint_pages = 1000;  // when the WAL has grown to this, after the commit
  };
  // Writes with statements on the database; runs on the writer's thread, perhaps twice (after a
  // rollback), so it must not consume what it captured.
  using Job = absl::AnyInvocable<absl::Status(Database&)>;
  // Runs on the writer's thread.
  using Done = absl::AnyInvocable<void(const absl::Status&)>;

  CommitWriter(Database database, Options options);
  // Does what is waiting, checkpoints, closes.
  ~CommitWriter();
  CommitWriter(const CommitWriter&) = delete;
  CommitWriter& operator=(const CommitWriter&) = delete;

  void Submit(Job job, Done done);

  // Runs `read` on the writer's thread between two commits, never twice, never within a
  // transaction: a second connection could be in the way of a checkpoint, and the file is locked
  // against it. At most one read runs between two commits, so keep it short; the reads that wait
  // are the caller's to bound.
  using ReadJob = absl::AnyInvocable<void(Database&)>;
  void Read(ReadJob read);

  // Commits so far (each one an fsync of the WAL), and jobs in them.
  uint64_t commits() const { return commits_.load(std::memory_order_relaxed); }
  uint64_t jobs() const { return jobs_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    Job job;
    Done done;
  };

  void Work();
  absl::Status CommitAll(std::vector<Entry>& entries, size_t begin, size_t end);

  const Options options_;
  std::atomic<uint64_t> commits_{0};
  std::atomic<uint64_t> jobs_{0};

  Mutex mutex_;
  CondVar wake_;
  std::deque<Entry> queue_ ABSL_GUARDED_BY(mutex_);
  std::deque<ReadJob> reads_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;

  // Belongs to the thread.
  Database database_;
  std::thread thread_;
};

}  // namespace bunker::sqlite
