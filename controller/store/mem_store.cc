#include "controller/store/mem_store.h"

#include <algorithm>
#include <vector>

#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::controller {

absl::Status MemStore::Load(Noun noun, RowVisitor visit) {
  for (const auto& [key, body] : rows()) {
    if (key.first == noun) RETURN_IF_ERROR(visit(key.second, body));
  }
  return absl::OkStatus();
}

void MemStore::Commit(Batch batch, Done done) {
  if (manual_) {
    MutexLock lock(mutex_);
    waiting_.emplace_back(std::move(batch), std::move(done));
    return;
  }
  Apply(std::move(batch), std::move(done));
}

void MemStore::Read(StoreRange range, RangeDone done) {
  StoredRows found;
  // The codec writes its fields without blanks.
  const std::string wanted =
      range.tenant_id.empty() ? "" : "\"tenant_id\":\"" + range.tenant_id + "\"";
  {
    MutexLock lock(mutex_);
    auto it = rows_.lower_bound({range.noun, ""});
    std::vector<const std::pair<const std::pair<Noun, std::string>, std::string>*> rows;
    for (; it != rows_.end() && it->first.first == range.noun; ++it) rows.push_back(&*it);
    if (range.newest_first) std::reverse(rows.begin(), rows.end());
    for (const auto* row : rows) {
      const std::string& id = row->first.second;
      if (!range.id.empty() && id != range.id) continue;
      const bool is_past =
          range.from.empty() || (range.newest_first ? id < range.from : id > range.from);
      if (!is_past || row->second.find(wanted) == std::string::npos) continue;
      if (found.size() == std::min(range.limit, kMaxRangeRows)) break;
      found.push_back({id, row->second});
    }
  }
  done(std::move(found));
}

bool MemStore::CommitNext() {
  std::pair<Batch, Done> next;
  {
    MutexLock lock(mutex_);
    if (waiting_.empty()) return false;
    next = std::move(waiting_.front());
    waiting_.pop_front();
  }
  Apply(std::move(next.first), std::move(next.second));
  return true;
}

void MemStore::Apply(Batch batch, Done done) {
  absl::Status status = absl::OkStatus();
  {
    MutexLock lock(mutex_);
    if (full_ && !batch.empty()) {
      status = ReasonError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                           "the store is full: make room");
    } else {
      ++commits_;
      for (const RowWrite& write : batch) {
        const std::pair<Noun, std::string> key{write.noun, write.id};
        if (write.body) {
          rows_[key] = write.body();
        } else {
          rows_.erase(key);
        }
      }
    }
  }
  done(status);
}

void MemStore::SetFull(bool full) {
  MutexLock lock(mutex_);
  full_ = full;
}

MemStore::Rows MemStore::rows() const {
  MutexLock lock(mutex_);
  return rows_;
}

size_t MemStore::waiting() const {
  MutexLock lock(mutex_);
  return waiting_.size();
}

uint64_t MemStore::commits() const {
  MutexLock lock(mutex_);
  return commits_;
}

}  // namespace bunker::controller
