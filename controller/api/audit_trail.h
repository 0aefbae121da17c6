// Who did what, written in the turn in which it was done: the dispatcher's part, so that no
// service can forget it.
//
// Every mutation and every start of a command gets a row; so does what was refused, but refusals
// only so fast (a burst, then one a second and tenant): what is left out is counted in the
// tenant's next row, so that nobody fills the disk with calls that do nothing. What has no key, or
// a wrong one, or comes too fast has no row: there is nobody to name.
//
// Not thread-safe: on the core's loop.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/audit_entry.h"
#include "controller/api/auth.h"
#include "controller/engine/engine.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

class AuditTrail {
 public:
  // Adds the row of what happened (`entry.outcome` "ok") or was refused.
  void Append(Engine& engine, Turn& turn, AuditEntry entry);

 private:
  RateLimiter refusals_{1, 60};                 // by tenant
  std::map<std::string, uint64_t> suppressed_;  // by tenant
};

// The row of one call: written once, by whoever comes first. Shared by the dispatcher and a
// handler that goes on after its turn.
class CallAudit {
 public:
  CallAudit(AuditTrail& trail, const MethodRule& rule, const Caller& caller,
            const std::string& request_id, const google::protobuf::Message& request);

  // Further arguments worth keeping: "role=tenant_admin". Never a secret, a body or a command.
  void AddDetail(std::string_view text);

  // What was asked for has been done in this turn. `answer` (may be null) tells what and whose.
  void Done(Engine& engine, Turn& turn, const google::protobuf::Message* answer);
  // A command is about to be started on that bunker.
  void Started(Engine& engine, Turn& turn, const Bunker& bunker);
  void Refused(Engine& engine, Turn& turn, const absl::Status& why);

  bool written() const { return written_; }

 private:
  void Write(Engine& engine, Turn& turn, std::string outcome);

  AuditTrail& trail_;
  AuditEntry entry_;
  bool written_ = false;
};

}  // namespace bunker::controller
