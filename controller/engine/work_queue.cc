#include "controller/engine/work_queue.h"

#include <algorithm>

#include "common/base/log.h"

namespace bunker::controller {

uint64_t WorkQueue::NextTag(const std::string& owner, bool urgent) {
  if (urgent) return served_ + 1;
  uint64_t& last = last_tag_[owner];
  last = std::max(last, served_) + 1;
  return last;
}

void WorkQueue::Served(uint64_t tag) {
  served_ = std::max(served_, tag);
}

void WorkQueue::Resume() {
  uint64_t lowest = 0;
  for (const auto& [id, worker] : workers_) {
    for (const auto& [host, waiting] : worker.waiting) {
      const uint64_t tag = waiting.begin()->first;
      if (lowest == 0 || tag < lowest) lowest = tag;
    }
  }
  if (lowest > 0) Served(lowest - 1);
}

void WorkQueue::Add(const Place& place, const std::string& owner, uint64_t tag,
                    const std::string& key) {
  // Of a row from the store as well: what comes later goes behind it.
  uint64_t& last = last_tag_[owner];
  last = std::max(last, tag);
  Worker& worker = workers_[place.worker];
  if (worker.waiting[place.registry].insert({tag, key}).second) ++worker.waits;
  Refresh(place.worker, worker);
}

void WorkQueue::Remove(const Place& place, uint64_t tag, const std::string& key) {
  Worker& worker = workers_[place.worker];
  const auto it = worker.waiting.find(place.registry);
  if (it == worker.waiting.end()) return;
  worker.waits -= it->second.erase({tag, key});
  if (it->second.empty()) worker.waiting.erase(it);
  Refresh(place.worker, worker);
}

void WorkQueue::Occupy(const Place& place) {
  Worker& worker = workers_[place.worker];
  ++worker.open;
  ++worker.open_by_registry[place.registry];
  if (worker.present) ++registries_[place.registry].open;
  Refresh(place.worker, worker);
}

void WorkQueue::Free(const Place& place) {
  Worker& worker = workers_[place.worker];
  const auto it = worker.open_by_registry.find(place.registry);
  BUNKER_CHECK(worker.open > 0 && it != worker.open_by_registry.end());
  --worker.open;
  if (--it->second == 0) worker.open_by_registry.erase(it);
  if (worker.present) --registries_[place.registry].open;
  Refresh(place.worker, worker);
}

void WorkQueue::SetWorker(const std::string& id, bool present, bool able) {
  Worker& worker = workers_[id];
  if (worker.present != present) {
    for (const auto& [host, open] : worker.open_by_registry) {
      uint32_t& count = registries_[host].open;
      count = present ? count + open : count - open;
    }
  }
  worker.present = present;
  worker.able = able;
  Refresh(id, worker);
}

void WorkQueue::Stall(const std::string& id) {
  Worker& worker = workers_[id];
  worker.stalled = true;
  Refresh(id, worker);
}

void WorkQueue::Wake(const std::string& id) {
  const auto it = workers_.find(id);
  if (it == workers_.end() || !it->second.stalled) return;
  it->second.stalled = false;
  Refresh(id, it->second);
}

// What the registries know of the worker: the first of each queue, if it may begin one.
void WorkQueue::Refresh(const std::string& id, Worker& worker) {
  for (const auto& [host, tag] : worker.shown) {
    const auto it = registries_.find(host);
    it->second.heads.erase({tag, id});
    if (it->second.heads.empty() && it->second.open == 0) registries_.erase(it);
  }
  worker.shown.clear();
  const bool full = limits_.per_worker > 0 && worker.open >= limits_.per_worker;
  if (!worker.able || worker.stalled || full) return;
  for (const auto& [host, waiting] : worker.waiting) {
    const uint64_t tag = waiting.begin()->first;
    registries_[host].heads.insert({tag, id});
    worker.shown[host] = tag;
  }
}

bool WorkQueue::HasRoom(const std::string& host, const Registry& registry) const {
  if (host.empty()) return true;
  const auto own = limits_.of_registry.find(host);
  const uint32_t limit = own == limits_.of_registry.end() ? limits_.per_registry : own->second;
  return limit == 0 || registry.open < limit;
}

std::optional<std::string> WorkQueue::Next() const {
  const std::pair<uint64_t, std::string>* best = nullptr;
  const std::string* host = nullptr;
  for (const auto& [name, registry] : registries_) {
    if (registry.heads.empty() || !HasRoom(name, registry)) continue;
    const auto& head = *registry.heads.begin();
    if (best != nullptr && *best < head) continue;
    best = &head;
    host = &name;
  }
  if (best == nullptr) return std::nullopt;
  return workers_.at(best->second).waiting.at(*host).begin()->second;
}

size_t WorkQueue::LoadOf(const std::string& id) const {
  const auto it = workers_.find(id);
  return it == workers_.end() ? 0 : it->second.open + it->second.waits;
}

uint32_t WorkQueue::open_on_worker(const std::string& id) const {
  const auto it = workers_.find(id);
  return it == workers_.end() ? 0 : it->second.open;
}

uint32_t WorkQueue::open_at_registry(const std::string& host) const {
  const auto it = registries_.find(host);
  return it == registries_.end() ? 0 : it->second.open;
}

}  // namespace bunker::controller
