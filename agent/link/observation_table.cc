#include "agent/link/observation_table.h"

#include "google/protobuf/util/message_differencer.h"

namespace bunker::agent {
namespace {

using link::v1::Observation;
using google::protobuf::util::MessageDifferencer;

// Whether `b` is `a` with only its counters moved.
bool OnlyProgress(const Observation& a, const Observation& b) {
  if (a.row_case() != b.row_case()) return false;
  Observation left = a;
  Observation right = b;
  for (Observation* row : {&left, &right}) {
    row->clear_version();
    if (row->has_image()) {
      row->mutable_image()->clear_bytes_done();
      row->mutable_image()->clear_bytes_total();
      row->mutable_image()->clear_rate_bytes_per_s();
    } else if (row->has_bunker()) {
      row->mutable_bunker()->clear_last_activity_unix_ms();
      row->mutable_bunker()->clear_active_execs();
    }
  }
  return MessageDifferencer::Equals(left, right);
}

bool SameContent(Observation a, const Observation& b) {
  a.set_version(b.version());
  return MessageDifferencer::Equals(a, b);
}

}  // namespace

void ObservationTable::Tell(Entry& entry, const Observation& row) {
  entry.told = row;
  entry.told.set_version(versions_.Next());
  entry.waiting.reset();
}

ObservationTable::Told ObservationTable::Upsert(const Observation& row) {
  const auto [it, added] = rows_.try_emplace(row.name());
  Entry& entry = it->second;
  if (!added && SameContent(entry.told, row)) {
    entry.waiting.reset();
    return Told::kNothing;
  }
  if (!added && entry.cooling && OnlyProgress(entry.told, row)) {
    entry.waiting = row;
    return Told::kLater;
  }
  Tell(entry, row);
  entry.cooling = true;
  return Told::kNow;
}

bool ObservationTable::Cooled(const std::string& name) {
  const auto it = rows_.find(name);
  if (it == rows_.end()) return false;
  it->second.cooling = false;
  if (!it->second.waiting) return false;
  Tell(it->second, Observation(*it->second.waiting));
  it->second.cooling = true;
  return true;
}

bool ObservationTable::Remove(const std::string& name) { return rows_.erase(name) > 0; }

std::optional<SyncRow<Observation>> ObservationTable::Find(const std::string& name) const {
  const auto it = rows_.find(name);
  if (it == rows_.end()) return std::nullopt;
  return SyncRow<Observation>{name, it->second.told.version(), it->second.told};
}

VersionMap ObservationTable::Versions() const {
  VersionMap versions;
  for (const auto& [name, entry] : rows_) versions[name] = entry.told.version();
  return versions;
}

}  // namespace bunker::agent
