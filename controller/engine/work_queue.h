// Which images are made next, and where: bounded per registry and per worker, fair between owners.
//
// A row that waits has a tag, given when it began to wait and kept in the row, so that a restart
// changes nothing. Tags are start times of fair queueing: each owner's rows get rising ones, an
// owner who comes late begins at the tag that is served now, and the lowest tag is served first.
// So owners take turns however long their queues are, and no row starves: what is served goes on
// rising, and only finitely many rows get a tag below one that waits.
//
// Follows the rows of the engine's tables (see state.cc), undone changes included.
// Not thread-safe: belongs to the engine.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace bunker::controller {

struct WorkLimits {
  // Rows being worked on at once; 0: no bound.
  uint32_t per_registry = 64;
  uint32_t per_worker = 4;
  std::map<std::string, uint32_t> of_registry;  // in place of per_registry, by host
};

class WorkQueue {
 public:
  explicit WorkQueue(WorkLimits limits) : limits_(std::move(limits)) {}

  // A row of `owner` begins to wait. One that somebody is waiting for passes its owner's own queue,
  // but not those who came before it.
  uint64_t NextTag(const std::string& owner, bool urgent);

  struct Place {
    std::string worker;
    std::string registry;  // "": a file, which no registry serves
    bool operator==(const Place&) const = default;
  };

  // A waiting row. `tag` > 0.
  void Add(const Place& place, const std::string& owner, uint64_t tag, const std::string& key);
  void Remove(const Place& place, uint64_t tag, const std::string& key);

  // A row is (not) being worked on.
  void Occupy(const Place& place);
  void Free(const Place& place);

  // `present`: what it works on counts against the registry's bound. `able`: may get new rows.
  void SetWorker(const std::string& worker, bool present, bool able);
  // Gives it nothing until Wake(): its disk has to change first.
  void Stall(const std::string& worker);
  void Wake(const std::string& worker);

  // The row whose turn it is: admit it (Remove and Occupy), take it out, or stall its worker.
  std::optional<std::string> Next() const;
  // Its tag has been served.
  void Served(uint64_t tag);
  // After the rows of the store were added: goes on where they were left.
  void Resume();

  // Rows that wait for the worker or are worked on there.
  size_t LoadOf(const std::string& worker) const;
  uint32_t open_on_worker(const std::string& worker) const;
  uint32_t open_at_registry(const std::string& registry) const;

 private:
  using Waiting = std::set<std::pair<uint64_t, std::string>>;  // tag, key
  struct Worker {
    bool present = false;
    bool able = false;
    bool stalled = false;
    uint32_t open = 0;
    size_t waits = 0;
    std::map<std::string, uint32_t> open_by_registry;
    std::map<std::string, Waiting> waiting;  // by registry
    std::map<std::string, uint64_t> shown;   // by registry: the head that is told there
  };
  struct Registry {
    uint32_t open = 0;
    std::set<std::pair<uint64_t, std::string>> heads;  // tag, worker
  };

  void Refresh(const std::string& worker, Worker& row);
  bool HasRoom(const std::string& host, const Registry& registry) const;

  const WorkLimits limits_;
  uint64_t served_ = 0;
  std::map<std::string, uint64_t> last_tag_;  // by owner
  std::map<std::string, Worker> workers_;
  std::map<std::string, Registry> registries_;
};

}  // namespace bunker::controller
