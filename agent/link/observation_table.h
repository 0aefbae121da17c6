// The observations that the link mirrors to the controller, each with its version, and the limit
// on how often a row that merely progresses is told.
//
// Not thread-safe: on the agent's loop only.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "bunker/link/v1/agent_link.pb.h"
#include "common/sync/sync_types.h"

namespace bunker::agent {

class ObservationTable {
 public:
  enum class Told {
    kNow,      // changed: send it; Cooled() is to be called one pause later, if not under way
    kLater,    // kept until Cooled()
    kNothing,  // equal to what is there
  };

  // `boot_counter`: raised and made durable before each start of the agent.
  explicit ObservationTable(uint64_t boot_counter) : versions_(boot_counter) {}

  // `row.version` is ignored. A change of state is told at once; progress within a state (bytes,
  // rates, activity) at most once a pause.
  Told Upsert(const link::v1::Observation& row);

  // True: there is a row to send, and Cooled() is to be called again one pause later.
  bool Cooled(const std::string& name);

  // False: it was not there.
  bool Remove(const std::string& name);

  std::optional<SyncRow<link::v1::Observation>> Find(const std::string& name) const;
  VersionMap Versions() const;

 private:
  struct Entry {
    link::v1::Observation told;
    std::optional<link::v1::Observation> waiting;
    bool cooling = false;
  };

  void Tell(Entry& entry, const link::v1::Observation& row);

  VersionCounter versions_;
  std::map<std::string, Entry> rows_;
};

}  // namespace bunker::agent
