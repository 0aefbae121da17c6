// What the account services share: names, permission keys, rows.
//
// Thread-safe: free functions without state.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bunker/v1/account.pb.h"
#include "controller/api/validate.h"
#include "controller/engine/accounts.h"
#include "google/protobuf/field_mask.pb.h"
#include "google/protobuf/repeated_field.h"

namespace bunker::controller {

// A name that people give: 1 to 128 characters of any script, none of them invisible (controls,
// zero-width and direction marks, blanks at the ends). Compared byte for byte.
void CheckAccountName(std::string_view field, std::string_view value, Validator* validator);

// The keys of a list, each "scaibunker:…" and at most once; else VALIDATION_ERROR.
absl::StatusOr<std::set<std::string>> PermissionsFrom(
    const google::protobuf::RepeatedPtrField<std::string>& list);

// Whether a request's mask names `field`. Over REST the mask is made of the body's members.
bool MaskHas(const google::protobuf::FieldMask& mask, std::string_view field);

void ToMessage(const Partner& row, v1::Partner* out);
void ToMessage(const Tenant& row, v1::Tenant* out);
void ToMessage(const Accounts& accounts, const User& row, v1::User* out);
void ToMessage(const Accounts& accounts, const UserGroup& row, v1::UserGroup* out);
void ToMessage(const ApiKey& row, v1::ApiKey* out);

}  // namespace bunker::controller
