// One row of the audit chain, and the ONE definition of what its hash covers.
//
// hash = SHA-256, as 64 lower-case hex digits, of the text "bunker-audit-1\n" followed by each of
//   prev_hash, seq, at_unix_ms, actor, actor_tenant_id, key_id, tenant_id, partner_id, action,
//   target, detail, outcome, request_id, suppressed
// in this order, each written as "<bytes in decimal>:<bytes>,". Numbers are decimal. The first row
// that ever was has seq 1 and the prev_hash of 64 zeros. So a row can't be changed, left out or put
// in between without all hashes after it being wrong.
//
// Thread-safe: values and pure functions.
#pragma once

#include <cstdint>
#include <string>

namespace bunker {

struct AuditEntry {
  uint64_t seq = 0;  // from 1, without a gap
  int64_t at_unix_ms = 0;
  std::string actor;            // a user's id, or "operator" (the root-only socket)
  std::string actor_tenant_id;  // "" = the operator's
  std::string key_id;           // "" = none
  std::string tenant_id;        // whose thing it was about
  std::string partner_id;       // that tenant's
  std::string action;           // "Images.RegisterImage"
  std::string target;           // an id, or what the caller called it where there is none
  std::string detail;           // further arguments, never a secret, a body or a command
  std::string outcome;          // "ok" or a code of the error table
  std::string request_id;
  uint64_t suppressed = 0;  // refused calls of the tenant before this one that got no row
  std::string prev_hash;
  std::string hash;

  bool operator==(const AuditEntry&) const = default;
};

// What `entry.hash` has to be; reads all other fields.
std::string AuditHash(const AuditEntry& entry);

// The prev_hash of the first row.
std::string AuditGenesis();

}  // namespace bunker
