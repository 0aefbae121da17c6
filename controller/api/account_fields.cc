#include "controller/api/account_fields.h"

#include <fmt/format.h>

#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/model/permissions.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxNameCharacters = 128;

// The code point at `*at`, which moves behind it. REQUIRES: valid UTF-8.
uint32_t NextCodePoint(std::string_view text, size_t* at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  const uint32_t first = byte(*at);
  const size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
  uint32_t code = more == 0 ? first : first & (0x3fu >> more);
  for (size_t i = 1; i <= more && *at + i < text.size(); ++i)
    code = code << 6 | (byte(*at + i) & 0x3f);
  *at += more + 1;
  return code;
}

// Two names that look alike must not differ by what nobody sees.
bool IsInvisible(uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code <= 0xa0) || code == 0xad ||
         (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202f) ||
         (code >= 0x2060 && code <= 0x206f) || code == 0xfeff || code >= 0xe0000;
}

}  // namespace

void CheckAccountName(std::string_view field, std::string_view value, Validator* validator) {
  if (value.empty()) return validator->Refuse(field, "is required");
  validator->Text(field, value, kMaxNameCharacters);
  if (value.front() == ' ' || value.back() == ' ')
    return validator->Refuse(field, "must not begin or end with a blank");
  for (size_t at = 0; at < value.size();) {
    if (!IsInvisible(NextCodePoint(value, &at))) continue;
    return validator->Refuse(field, "holds a character that nobody can see; remove it");
  }
  if (HasIdPrefix(value)) validator->Refuse(field, "begins like an id; choose another name");
}

absl::StatusOr<std::set<std::string>> PermissionsFrom(
    const google::protobuf::RepeatedPtrField<std::string>& list) {
  Validator v;
  std::set<std::string> permissions;
  for (int i = 0; i < list.size(); ++i) {
    const std::string field = fmt::format("permissions[{}]", i);
    if (AllPermissions().count(list[i]) == 0) {
      v.Refuse(field, "is no permission; they are written scaibunker:create and so on");
    } else if (!permissions.insert(list[i]).second) {
      v.Refuse(field, "occurs twice; send it once");
    }
    if (i > 100) break;  // every one beyond the sixteen there are is refused
  }
  if (absl::Status status = v.status(); !status.ok()) return status;
  return permissions;
}

bool MaskHas(const google::protobuf::FieldMask& mask, std::string_view field) {
  for (const std::string& path : mask.paths()) {
    if (path == field) return true;
  }
  return false;
}

void ToMessage(const Partner& row, v1::Partner* out) {
  out->set_id(row.id);
  out->set_name(row.name);
  SetTime(row.created_at, out->mutable_created_at());
}

void ToMessage(const Tenant& row, v1::Tenant* out) {
  out->set_id(row.id);
  out->set_name(row.name);
  out->set_partner_id(row.partner_id);
  out->set_status(ToProto<v1::TenantStatus>(row.status));
  SetTime(row.created_at, out->mutable_created_at());
}

void ToMessage(const Accounts& accounts, const User& row, v1::User* out) {
  out->set_id(row.id);
  out->set_tenant_id(row.tenant_id);
  out->set_name(row.name);
  out->set_role(ToProto<v1::Role>(row.role));
  out->set_status(ToProto<v1::UserStatus>(row.status));
  for (const std::string& permission : row.permissions) out->add_permissions(permission);
  for (const std::string& group : row.group_ids) out->add_group_ids(group);
  for (const std::string& permission : accounts.PermissionsOfUser(row))
    out->add_effective_permissions(permission);
  SetTime(row.created_at, out->mutable_created_at());
}

void ToMessage(const Accounts& accounts, const UserGroup& row, v1::UserGroup* out) {
  out->set_id(row.id);
  out->set_tenant_id(row.tenant_id);
  out->set_name(row.name);
  if (!row.parent_id.empty()) out->set_parent_id(row.parent_id);
  for (const std::string& permission : row.permissions) out->add_permissions(permission);
  out->set_member_count(static_cast<uint32_t>(accounts.MemberCount(row.id)));
  SetTime(row.created_at, out->mutable_created_at());
  SetTime(row.updated_at, out->mutable_updated_at());
}

void ToMessage(const ApiKey& row, v1::ApiKey* out) {
  out->set_id(row.id);
  out->set_name(row.name);
  out->set_user_id(row.user_id);
  out->set_tenant_id(row.tenant_id);
  out->set_restricted(row.permissions.has_value());
  if (row.permissions) {
    for (const std::string& permission : *row.permissions) out->add_permissions(permission);
  }
  if (row.expires_at) SetTime(*row.expires_at, out->mutable_expires_at());
  if (row.rate_limit_per_s) out->set_rate_limit_per_s(*row.rate_limit_per_s);
  if (row.revoked_at) SetTime(*row.revoked_at, out->mutable_revoked_at());
  SetTime(row.created_at, out->mutable_created_at());
}

}  // namespace bunker::controller
