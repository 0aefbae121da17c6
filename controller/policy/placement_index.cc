#include "controller/policy/placement_index.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <utility>

#include "common/base/log.h"

namespace bunker::controller {
namespace {

// The smallest bunker that the contract allows.
constexpr Resources kLeast = {50, 64 + 96, 64};
constexpr absl::Duration kFailureHalfLife = absl::Minutes(5);
constexpr char kOpenToAll[] = "shared";

std::string TenantKey(const std::string& id) {
  return "tenant:" + id;
}
std::string PartnerKey(const std::string& id) {
  return "partner:" + id;
}

// Who may use the worker; MayUseWorker() says the same of one viewer.
std::string ReachOf(const Worker& worker) {
  switch (worker.ownership.scope) {
    case Scope::kPlatform:
      return worker.shared ? kOpenToAll : "";
    case Scope::kPartner:
      return PartnerKey(worker.ownership.partner_id);
    case Scope::kTenant:
      return TenantKey(worker.ownership.tenant_id);
  }
  return "";
}

std::string LabelKey(const std::string& label, const std::string& value) {
  return std::to_string(label.size()) + ":" + label + "=" + value;
}

}  // namespace

Resources PlacementIndex::Slot::Taken() const {
  Resources taken = allocated;
  taken.disk_mb += (cached_bytes + (1 << 20) - 1) >> 20;
  return taken;
}

uint64_t PlacementIndex::Filter::Word(size_t word) const {
  uint64_t bits = ~uint64_t{0};
  for (const SlotSet* set : all) bits &= set->Word(word);
  if (none != nullptr) bits &= ~none->Word(word);
  for (const std::vector<const SlotSet*>& sets : any) {
    if (bits == 0) return 0;
    uint64_t either = 0;
    for (const SlotSet* set : sets) either |= set->Word(word);
    bits &= either;
  }
  return bits;
}

// ---- slots ------------------------------------------------------------------------------------

uint32_t PlacementIndex::SlotOf(const std::string& worker_id) {
  const auto it = slot_of_.find(worker_id);
  if (it != slot_of_.end()) return it->second;
  uint32_t slot = static_cast<uint32_t>(slots_.size());
  if (free_.empty()) {
    slots_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  slots_[slot].id = worker_id;
  slot_of_[worker_id] = slot;
  return slot;
}

const PlacementIndex::Slot* PlacementIndex::FindSlot(const std::string& worker_id) const {
  const auto it = slot_of_.find(worker_id);
  return it == slot_of_.end() ? nullptr : &slots_[it->second];
}

void PlacementIndex::FreeIfUnused(uint32_t slot) {
  const Slot& row = slots_[slot];
  if (row.present || row.mentions > 0 || row.booting > 0 || row.cached_bytes > 0 ||
      !(row.allocated == Resources{})) {
    return;
  }
  slot_of_.erase(row.id);
  slots_[slot] = Slot();
  free_.push_back(slot);
}

void PlacementIndex::Change(Sets& sets, const std::string& key, uint32_t slot, bool in) {
  if (in) {
    sets[key].Add(slot);
    return;
  }
  const auto it = sets.find(key);
  if (it == sets.end()) return;
  it->second.Remove(slot);
  if (it->second.empty()) sets.erase(it);
}

const SlotSet& PlacementIndex::In(const Sets& sets, const std::string& key) {
  static const SlotSet* const none = new SlotSet();
  const auto it = sets.find(key);
  return it == sets.end() ? *none : it->second;
}

void PlacementIndex::UpdateRoomy(uint32_t slot) {
  const Slot& row = slots_[slot];
  if (row.present && Fits(kLeast, row.room, row.Taken())) {
    roomy_.Add(slot);
  } else {
    roomy_.Remove(slot);
  }
}

void PlacementIndex::SetLabels(uint32_t slot, const std::map<std::string, std::string>& labels) {
  Slot& row = slots_[slot];
  if (row.labels == labels) return;
  for (const auto& [label, value] : row.labels) {
    Change(labels_, LabelKey(label, value), slot, false);
  }
  for (const auto& [label, value] : labels) Change(labels_, LabelKey(label, value), slot, true);
  row.labels = labels;
}

void PlacementIndex::SetMembers(Sets& sets, uint32_t slot, const std::set<std::string>& now,
                                std::set<std::string>* kept) {
  if (*kept == now) return;
  for (const std::string& key : *kept) Change(sets, key, slot, false);
  for (const std::string& key : now) Change(sets, key, slot, true);
  *kept = now;
}

// ---- changes ----------------------------------------------------------------------------------

void PlacementIndex::PutWorker(const Worker& worker) {
  const uint32_t slot = SlotOf(worker.id);
  Slot& row = slots_[slot];
  arch_[static_cast<size_t>(row.arch)].Remove(slot);
  row.present = true;
  row.name = worker.name;
  row.status = worker.status;
  row.arch = worker.facts.arch;
  row.room = RoomOf(worker.facts.capacity, options_);
  arch_[static_cast<size_t>(row.arch)].Add(slot);
  if (row.status == WorkerStatus::kOnline) {
    online_.Add(slot);
  } else {
    online_.Remove(slot);
  }
  if (std::string reach = ReachOf(worker); reach != row.reach) {
    if (!row.reach.empty()) Change(reach_, row.reach, slot, false);
    if (!reach.empty()) Change(reach_, reach, slot, true);
    row.reach = std::move(reach);
  }
  SetLabels(slot, worker.labels());
  SetMembers(networks_, slot, worker.facts.network_profiles, &row.networks);
  SetMembers(bridges_, slot, worker.facts.bridges, &row.bridges);
  UpdateRoomy(slot);
}

void PlacementIndex::RemoveWorker(const std::string& worker_id) {
  const auto it = slot_of_.find(worker_id);
  if (it == slot_of_.end()) return;
  const uint32_t slot = it->second;
  Slot& row = slots_[slot];
  arch_[static_cast<size_t>(row.arch)].Remove(slot);
  online_.Remove(slot);
  if (!row.reach.empty()) Change(reach_, row.reach, slot, false);
  SetLabels(slot, {});
  SetMembers(networks_, slot, {}, &row.networks);
  SetMembers(bridges_, slot, {}, &row.bridges);
  row.reach.clear();
  row.name.clear();
  row.status = WorkerStatus::kOffline;
  row.arch = Arch::kUnspecified;
  row.room = {};
  row.present = false;
  UpdateRoomy(slot);
  FreeIfUnused(slot);
}

void PlacementIndex::Take(const std::string& worker_id, const Resources& room) {
  const uint32_t slot = SlotOf(worker_id);
  slots_[slot].allocated += room;
  UpdateRoomy(slot);
}

void PlacementIndex::Give(const std::string& worker_id, const Resources& room) {
  const uint32_t slot = SlotOf(worker_id);
  slots_[slot].allocated -= room;
  UpdateRoomy(slot);
  FreeIfUnused(slot);
}

void PlacementIndex::TakeCache(const std::string& worker_id, uint64_t bytes) {
  const uint32_t slot = SlotOf(worker_id);
  slots_[slot].cached_bytes += bytes;
  UpdateRoomy(slot);
}

void PlacementIndex::GiveCache(const std::string& worker_id, uint64_t bytes) {
  const uint32_t slot = SlotOf(worker_id);
  BUNKER_CHECK(slots_[slot].cached_bytes >= bytes);
  slots_[slot].cached_bytes -= bytes;
  UpdateRoomy(slot);
  FreeIfUnused(slot);
}

void PlacementIndex::SetReady(const std::string& image_id, const std::string& worker_id,
                              bool ready) {
  const uint32_t slot = SlotOf(worker_id);
  if (In(ready_, image_id).Has(slot) != ready) {
    Change(ready_, image_id, slot, ready);
    slots_[slot].mentions += ready ? 1 : -1;
  }
  FreeIfUnused(slot);
}

void PlacementIndex::SetPaired(const std::string& group_id, const std::string& worker_id,
                               bool paired) {
  const uint32_t slot = SlotOf(worker_id);
  if (In(paired_, group_id).Has(slot) != paired) {
    Change(paired_, group_id, slot, paired);
    slots_[slot].mentions += paired ? 1 : -1;
  }
  FreeIfUnused(slot);
}

void PlacementIndex::AddBooting(const std::string& worker_id, int change) {
  const uint32_t slot = SlotOf(worker_id);
  BUNKER_CHECK(change > 0 || slots_[slot].booting >= static_cast<uint32_t>(-change));
  slots_[slot].booting += static_cast<uint32_t>(change);
  FreeIfUnused(slot);
}

double PlacementIndex::FailuresAt(const Slot& slot, absl::Time now) const {
  if (slot.failures == 0 || now <= slot.failed_at) return slot.failures;
  return slot.failures * std::exp2(-absl::FDivDuration(now - slot.failed_at, kFailureHalfLife));
}

void PlacementIndex::NoteFailure(const std::string& worker_id, absl::Time now) {
  const auto it = slot_of_.find(worker_id);
  if (it == slot_of_.end()) return;
  Slot& row = slots_[it->second];
  row.failures = FailuresAt(row, now) + 1;
  row.failed_at = now;
}

// ---- reading ----------------------------------------------------------------------------------

Resources PlacementIndex::Allocated(const std::string& worker_id) const {
  const Slot* row = FindSlot(worker_id);
  return row == nullptr ? Resources{} : row->allocated;
}

uint64_t PlacementIndex::CachedMb(const std::string& worker_id) const {
  const Slot* row = FindSlot(worker_id);
  return row == nullptr ? 0 : row->Taken().disk_mb - row->allocated.disk_mb;
}

PlacementCandidate PlacementIndex::Candidate(const std::string& worker_id, absl::Time now) const {
  PlacementCandidate candidate;
  candidate.worker_id = worker_id;
  const Slot* row = FindSlot(worker_id);
  if (row == nullptr) return candidate;
  candidate.worker_name = row->name;
  candidate.status = row->status;
  candidate.arch = row->arch;
  candidate.labels = &row->labels;
  candidate.networks = &row->networks;
  candidate.bridges = &row->bridges;
  candidate.room = row->room;
  candidate.allocated = row->Taken();
  candidate.booting = row->booting;
  candidate.recent_failures = FailuresAt(*row, now);
  return candidate;
}

bool PlacementIndex::IsReady(const std::string& image_id, const std::string& worker_id) const {
  const auto it = slot_of_.find(worker_id);
  return it != slot_of_.end() && In(ready_, image_id).Has(it->second);
}

bool PlacementIndex::IsPaired(const std::vector<std::string>& group_ids,
                              const std::string& worker_id) const {
  const auto it = slot_of_.find(worker_id);
  if (it == slot_of_.end()) return false;
  return std::any_of(group_ids.begin(), group_ids.end(),
                     [&](const std::string& id) { return In(paired_, id).Has(it->second); });
}

bool PlacementIndex::Narrow(const PlacementQuery& query, Filter& filter) const {
  const PlacementRequest& request = *query.request;
  if (request.gpu_count > 0) return false;  // agents report none
  filter.all = {&online_, &roomy_};
  if (request.arch != Arch::kUnspecified) {
    filter.all.push_back(&arch_[static_cast<size_t>(request.arch)]);
  }
  for (const auto& [label, value] : request.worker_labels) {
    filter.all.push_back(&In(labels_, LabelKey(label, value)));
  }
  if (!request.network_profile.empty())
    filter.all.push_back(&In(networks_, request.network_profile));
  for (const std::string& bridge : request.bridges) filter.all.push_back(&In(bridges_, bridge));
  filter.any.push_back({&In(reach_, kOpenToAll), &In(reach_, PartnerKey(query.viewer.partner_id)),
                        &In(reach_, TenantKey(query.viewer.tenant_id))});
  if (!request.snapshot_worker_id.empty()) return true;
  if (query.group_ids.empty()) return request.lazy_pull;
  std::vector<const SlotSet*> paired;
  for (const std::string& id : query.group_ids) paired.push_back(&In(paired_, id));
  filter.any.push_back(std::move(paired));
  return true;
}

std::optional<uint32_t> PlacementIndex::Walk(const Filter& filter, const PlacementRequest& request,
                                             bool image_ready, absl::Time now, Rng& rng) const {
  if (slots_.empty()) return std::nullopt;
  const size_t words = (slots_.size() + SlotSet::kBits - 1) / SlotSet::kBits;
  const size_t start = rng.Below(slots_.size());
  const size_t first = start / SlotSet::kBits;
  const uint64_t from_start = ~uint64_t{0} << (start % SlotSet::kBits);
  std::optional<uint32_t> best;
  double best_score = 0;
  uint64_t ties = 0;
  size_t seen = 0;
  PlacementCandidate candidate;
  candidate.image_ready = image_ready;
  // The word of the start comes twice: its end first, its beginning last.
  for (size_t i = 0; i <= words && seen < kWindow; ++i) {
    const size_t word = (first + i) % words;
    uint64_t bits = filter.Word(word);
    if (i == 0) bits &= from_start;
    if (i == words) bits &= ~from_start;
    for (; bits != 0 && seen < kWindow; bits &= bits - 1) {
      const auto bit = static_cast<size_t>(std::countr_zero(bits));
      const auto slot = static_cast<uint32_t>(word * SlotSet::kBits + bit);
      const Slot& row = slots_[slot];
      candidate.room = row.room;
      candidate.allocated = row.Taken();
      if (!Fits(request.wanted, candidate.room, candidate.allocated)) continue;
      candidate.booting = row.booting;
      candidate.recent_failures = FailuresAt(row, now);
      const double score = Score(request, candidate);
      ++seen;
      if (!best || score > best_score) {
        best = slot;
        best_score = score;
        ties = 1;
      } else if (score == best_score && rng.Below(++ties) == 0) {
        best = slot;
      }
    }
  }
  return best;
}

std::optional<PlacementChoice> PlacementIndex::Find(const PlacementQuery& query, absl::Time now,
                                                    Rng& rng) const {
  const PlacementRequest& request = *query.request;
  Filter filter;
  if (!Narrow(query, filter)) return std::nullopt;
  SlotSet open;
  if (request.bridge_workers) {
    for (const std::string& id : *request.bridge_workers) {
      if (const auto it = slot_of_.find(id); it != slot_of_.end()) open.Add(it->second);
    }
    filter.all.push_back(&open);
  }
  SlotSet home;
  if (!request.snapshot_worker_id.empty()) {
    const auto it = slot_of_.find(request.snapshot_worker_id);
    if (it == slot_of_.end()) return std::nullopt;
    home.Add(it->second);
    filter.all.push_back(&home);
  }
  const SlotSet& ready = In(ready_, query.image_id);
  filter.all.push_back(&ready);
  if (const auto slot = Walk(filter, request, /*image_ready=*/true, now, rng)) {
    return PlacementChoice{slots_[*slot].id, true};
  }
  if (!request.lazy_pull) return std::nullopt;
  // An image that is there outweighs everything: only where no such worker has room, the others.
  filter.all.pop_back();
  filter.none = &ready;
  if (const auto slot = Walk(filter, request, /*image_ready=*/false, now, rng)) {
    return PlacementChoice{slots_[*slot].id, false};
  }
  return std::nullopt;
}

std::string PlacementIndex::Difference(const PlacementIndex& other) const {
  const auto sets_of = [](const PlacementIndex& index, uint32_t slot) {
    std::set<std::string> in;
    const auto collect = [&](const char* kind, const Sets& sets) {
      for (const auto& [key, set] : sets) {
        if (set.Has(slot)) in.insert(std::string(kind) + key);
      }
    };
    collect("reach ", index.reach_);
    collect("label ", index.labels_);
    collect("network ", index.networks_);
    collect("bridge ", index.bridges_);
    collect("ready ", index.ready_);
    collect("paired ", index.paired_);
    if (index.online_.Has(slot)) in.insert("online");
    if (index.roomy_.Has(slot)) in.insert("roomy");
    for (size_t i = 0; i < std::size(index.arch_); ++i) {
      if (index.arch_[i].Has(slot)) in.insert("arch " + std::to_string(i));
    }
    return in;
  };
  if (slot_of_.size() != other.slot_of_.size()) return "the number of workers";
  for (const auto& [id, slot] : slot_of_) {
    const auto it = other.slot_of_.find(id);
    if (it == other.slot_of_.end()) return "worker " + id;
    const Slot& a = slots_[slot];
    const Slot& b = other.slots_[it->second];
    if (a.present != b.present || a.name != b.name || a.status != b.status || a.arch != b.arch ||
        a.labels != b.labels || a.networks != b.networks || a.bridges != b.bridges ||
        !(a.room == b.room)) {
      return "the facts of " + id;
    }
    if (!(a.allocated == b.allocated)) return "what is taken on " + id;
    if (a.cached_bytes != b.cached_bytes) return "what is cached on " + id;
    if (a.booting != b.booting) return "what is booting on " + id;
    if (a.mentions != b.mentions) return "the mentions of " + id;
    if (sets_of(*this, slot) != sets_of(other, it->second)) return "the sets of " + id;
  }
  return "";
}

}  // namespace bunker::controller
