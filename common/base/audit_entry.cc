#include "common/base/audit_entry.h"

#include "common/base/sha256.h"

namespace bunker {
namespace {

void Add(const std::string& field, std::string* text) {
  *text += std::to_string(field.size());
  *text += ':';
  *text += field;
  *text += ',';
}

}  // namespace

std::string AuditHash(const AuditEntry& entry) {
  std::string text = "bunker-audit-1\n";
  Add(entry.prev_hash, &text);
  Add(std::to_string(entry.seq), &text);
  Add(std::to_string(entry.at_unix_ms), &text);
  for (const std::string* field :
       {&entry.actor, &entry.actor_tenant_id, &entry.key_id, &entry.tenant_id, &entry.partner_id,
        &entry.action, &entry.target, &entry.detail, &entry.outcome, &entry.request_id}) {
    Add(*field, &text);
  }
  Add(std::to_string(entry.suppressed), &text);
  return Sha256Hex(text);
}

std::string AuditGenesis() {
  return std::string(64, '0');
}

}  // namespace bunker
