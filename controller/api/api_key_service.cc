// API keys. The key itself is drawn here, from the system's generator, answered once, and kept
// nowhere but as its hash.
#include <string>

#include "bunker/v1/account.pb.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/api/account_fields.h"
#include "controller/api/convert.h"
#include "controller/api/services.h"
#include "controller/model/api_key.h"

namespace bunker::controller {
namespace {

constexpr char kKeys[] = "api_keys";

absl::StatusOr<v1::ApiKey> KeyOf(const absl::StatusOr<RowPtr<ApiKey>>& row) {
  if (!row.ok()) return row.status();
  v1::ApiKey message;
  ToMessage(**row, &message);
  return message;
}

absl::StatusOr<v1::ApiKey> CreateKey(CallContext& context, const v1::CreateApiKeyRequest& request) {
  Validator v;
  CheckAccountName("name", request.name(), &v);
  if (request.has_rate_limit_per_s() && request.rate_limit_per_s() == 0)
    v.Refuse("rate_limit_per_s", "must be at least 1; revoke the key to stop it");
  RETURN_IF_ERROR(v.status());
  CreateApiKeySpec spec;
  spec.name = request.name();
  spec.user_id = request.user_id();
  if (request.permissions_size() > 0 || MaskHas(request.update_mask(), "permissions")) {
    ASSIGN_OR_RETURN(spec.permissions, PermissionsFrom(request.permissions()));
  }
  if (request.has_expires_at()) {
    spec.expires_at = absl::FromUnixSeconds(request.expires_at().seconds()) +
                      absl::Nanoseconds(request.expires_at().nanos());
  }
  if (request.has_rate_limit_per_s()) spec.rate_limit_per_s = request.rate_limit_per_s();
  const std::string secret = NewApiKeySecret();
  spec.sha256 = Sha256Hex(secret);
  ASSIGN_OR_RETURN(v1::ApiKey row, KeyOf(context.engine.accounts().CreateApiKey(
                                       context.turn, context.caller, spec)));
  row.set_key(secret);
  return row;
}

absl::StatusOr<v1::ListApiKeysResponse> ListKeys(const Cursors& cursors, CallContext& context,
                                                 const v1::ListApiKeysRequest& request) {
  const std::string& tenant = context.caller.tenant_id;
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(tenant, kKeys, request));
  ASSIGN_OR_RETURN(const Page<ApiKey> found,
                   context.engine.accounts().ListApiKeys(context.caller, request.user_id(), page));
  v1::ListApiKeysResponse response;
  for (const RowPtr<ApiKey>& row : found.rows) ToMessage(*row, response.add_keys());
  response.set_has_more(found.has_more);
  if (found.has_more) response.set_next_cursor(cursors.Make(tenant, kKeys, found.rows.back()->id));
  return response;
}

}  // namespace

void RegisterApiKeyService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  const std::string service = "bunker.v1.ApiKeys.";
  dispatcher->For(service + "CreateApiKey")
      .Register<v1::CreateApiKeyRequest, v1::ApiKey>(CreateKey);
  dispatcher->For(service + "ListApiKeys")
      .Register<v1::ListApiKeysRequest, v1::ListApiKeysResponse>(
          [cursors](CallContext& context, const v1::ListApiKeysRequest& request) {
            return ListKeys(*cursors, context, request);
          });
  dispatcher->For(service + "GetApiKey")
      .Register<v1::GetApiKeyRequest, v1::ApiKey>(
          [](CallContext& context, const v1::GetApiKeyRequest& request) {
            return KeyOf(context.engine.accounts().FindApiKey(context.caller, request.key()));
          });
  dispatcher->For(service + "RevokeApiKey")
      .Register<v1::RevokeApiKeyRequest, v1::ApiKey>(
          [](CallContext& context, const v1::RevokeApiKeyRequest& request) {
            return KeyOf(context.engine.accounts().RevokeApiKey(context.turn, context.caller,
                                                                request.key()));
          });
}

}  // namespace bunker::controller
