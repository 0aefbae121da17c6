// One noun's rows in memory: immutable, replaced whole, indexed, and taken back on demand.
//
// Every change goes through a Turn, which remembers the row that was there before. So a failed
// call, or a batch that found no room on disk, is undone exactly, indexes included.
// Not thread-safe: belongs to the engine.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/base/log.h"
#include "controller/engine/change_set.h"
#include "controller/engine/turn.h"
#include "controller/store/row_codec.h"
#include "controller/store/store.h"

namespace bunker::controller {

template <typename T>
std::string RowKey(const T& row) {
  return row.id;
}
inline std::string RowKey(const CacheEntry& row) { return row.key(); }
inline std::string RowKey(const IdempotencyRecord& row) { return row.id(); }
inline std::string RowKey(const DesiredRow& row) { return row.worker_id + "/" + row.name; }

template <typename T>
class Table final : public UndoableTable {
 public:
  using Rows = std::map<std::string, RowPtr<T>>;
  // Told of every change, the loading and the undoing of one included. Either may be null.
  using Indexer = std::function<void(const T* before, const T* after)>;
  using ChangeList = std::vector<Change<T>> ChangeSet::*;

  // `noun`: nothing for a table that is derived and not stored. `list`: where its changes are
  // reported; null for nowhere.
  Table(std::optional<Noun> noun, ChangeList list, Indexer indexer = nullptr)
      : noun_(noun), list_(list), indexer_(std::move(indexer)) {}

  const Rows& rows() const { return rows_; }

  // Null where there is none.
  RowPtr<T> Find(const std::string& id) const {
    const auto it = by_id_.find(id);
    return it == by_id_.end() ? nullptr : it->second->second;
  }

  RowPtr<T> Put(Turn& turn, T row) {
    const std::string id = RowKey(row);
    auto after = std::make_shared<const T>(std::move(row));
    turn.NoteWrite(this, id, Find(id));
    Replace(id, after);
    return after;
  }

  void Erase(Turn& turn, const std::string& id) {
    RowPtr<T> before = Find(id);
    if (before == nullptr) return;
    turn.NoteWrite(this, id, std::move(before));
    Replace(id, nullptr);
  }

  // A row from the store, or derived from one at start.
  void LoadRow(T row) {
    const std::string id = RowKey(row);
    Replace(id, std::make_shared<const T>(std::move(row)));
  }

  void Restore(const std::string& id, const std::shared_ptr<const void>& before) override {
    Replace(id, std::static_pointer_cast<const T>(before));
  }

  std::shared_ptr<const void> Current(const std::string& id) const override { return Find(id); }

  void Report(const std::string& id, const std::shared_ptr<const void>& before, Batch& batch,
              ChangeSet& changes) const override {
    RowPtr<T> after = Find(id);
    if (before == nullptr && after == nullptr) return;
    if constexpr (!std::is_same_v<T, DesiredRow>) {
      if (noun_ && after != nullptr) {
        batch.push_back({*noun_, id, [after] { return EncodeRow(*after); }});
      } else if (noun_) {
        batch.push_back({*noun_, id, nullptr});
      }
    }
    if (list_ != nullptr) {
      (changes.*list_)
          .push_back({id, std::static_pointer_cast<const T>(before), std::move(after)});
    }
  }

 private:
  void Replace(const std::string& id, RowPtr<T> after) {
    const auto it = by_id_.find(id);
    const RowPtr<T> before = it == by_id_.end() ? nullptr : it->second->second;
    if (indexer_) indexer_(before.get(), after.get());
    if (before != nullptr && after != nullptr) {
      it->second->second = std::move(after);
    } else if (after != nullptr) {
      // Ids that begin with the time come in order.
      const auto row = rows_.emplace_hint(rows_.end(), id, std::move(after));
      by_id_.emplace(row->first, row);
    } else if (before != nullptr) {
      const auto row = it->second;
      by_id_.erase(it);
      rows_.erase(row);
    }
  }

  const std::optional<Noun> noun_;
  const ChangeList list_;
  const Indexer indexer_;
  Rows rows_;
  // To the rows, by their keys: a look-up in a tree of many rows is one cache miss after another.
  absl::flat_hash_map<absl::string_view, typename Rows::iterator> by_id_;
};

}  // namespace bunker::controller
