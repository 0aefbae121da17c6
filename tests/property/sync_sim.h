// A simulator of two peers that mirror one table to each other in each direction, over a stream
// that an adversary cuts, with restarts of either side. The seed draws everything.
//
// Safety is checked at every step while faults last; then the faults stop and both copies must
// become equal within a bounded number of steps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace bunker {

// Mistakes that an implementation might make. The simulator must find each of them: it is worth
// only as much as what it catches.
enum class SyncMistake {
  kNone,
  kLeavesOutRemovals,     // deletions are never sent
  kReusesVersions,        // the version counter starts over with the process
  kAcksBeforeDurable,     // an ack leaves before the journal write is done
  kTakesOlderSessions,    // frames and acks of an earlier session are taken as the current one's
  kDeletesBeforeSynced,   // removals are applied as they come
  kForgetsChangeInFlight, // a row that changes while a frame is in flight is not sent again
  kClaimsLostRows,        // after a crash, says it holds what it never made durable
};

// Runs one seed. Nothing: all held. Else what was violated, for people.
std::optional<std::string> RunSyncSimulation(uint64_t seed, SyncMistake mistake);

}  // namespace bunker
