#include "common/sqlite/commit_writer.h"

#include <pthread.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/sqlite/sync_count.h"

namespace bunker::sqlite {
namespace {

bool IsDiskFull(const absl::Status& status) { return ReasonOf(status) == "DISK_FULL"; }

[[noreturn]] void DieOf(const absl::Status& status) {
  Log(Severity::kError, "store.commit_failed",
      {{"error", status.ToString()}, {"remedy", "the daemon restarts and reads its store again"}});
  std::abort();
}

}  // namespace

CommitWriter::CommitWriter(Database database, Options options)
    : options_(options), database_(std::move(database)) {
  WatchSyncs(database_.handle());
  thread_ = std::thread([this] { Work(); });
}

CommitWriter::~CommitWriter() {
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void CommitWriter::Submit(Job job, Done done) {
  {
    MutexLock lock(mutex_);
    BUNKER_CHECK(!closed_);
    queue_.push_back({std::move(job), std::move(done)});
  }
  wake_.notify_one();
}

void CommitWriter::Read(ReadJob read) {
  {
    MutexLock lock(mutex_);
    BUNKER_CHECK(!closed_);
    reads_.push_back(std::move(read));
  }
  wake_.notify_one();
}

void CommitWriter::Work() {
  pthread_setname_np(pthread_self(), "store-commit");
  while (true) {
    std::vector<Entry> entries;
    ReadJob read;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && reads_.empty() && !closed_) wake_.wait(lock.native());
      if (queue_.empty() && reads_.empty()) break;
      if (!reads_.empty()) {
        read = std::move(reads_.front());
        reads_.pop_front();
      }
      while (!queue_.empty() && entries.size() < options_.max_jobs_per_commit) {
        entries.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    if (read) read(database_);
    if (entries.empty()) continue;
    const absl::Status all = CommitAll(entries, 0, entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      const absl::Status one =
          all.ok() || entries.size() == 1 ? all : CommitAll(entries, i, i + 1);
      entries[i].done(one);
    }
    if (database_.wal_pages() >= options_.checkpoint_pages) {
      const absl::Status status = database_.Checkpoint();
      // Nothing is lost: the WAL grows on, and the next commit tries again.
      if (!status.ok()) {
        Log(Severity::kWarning, "store.checkpoint_failed", {{"error", status.ToString()}});
      }
    }
  }
  const absl::Status status = database_.Checkpoint();
  if (!status.ok()) {
    Log(Severity::kWarning, "store.checkpoint_failed", {{"error", status.ToString()}});
  }
}

absl::Status CommitWriter::CommitAll(std::vector<Entry>& entries, size_t begin, size_t end) {
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
    for (size_t i = begin; i < end; ++i) RETURN_IF_ERROR(entries[i].job(database_));
    return transaction.Commit();
  }();
  if (status.ok()) {
    commits_.fetch_add(1, std::memory_order_relaxed);
    jobs_.fetch_add(end - begin, std::memory_order_relaxed);
  } else if (!IsDiskFull(status)) {
    DieOf(status);
  }
  return status;
}

}  // namespace bunker::sqlite
