// Registry credentials. The secret is sealed here, on its way in, and never comes back.
#include <string>
#include <utility>

#include "bunker/v1/registry_credential.pb.h"
#include "common/base/converters.h"
#include "common/base/status_macros.h"
#include "common/oci/reference.h"
#include "common/seal/key_ring.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/credentials.h"

namespace bunker::controller {
namespace {

constexpr char kList[] = "registry-credentials";

v1::RegistryCredential Row(CallContext& context, const RegistryCredential& credential) {
  v1::RegistryCredential row;
  row.set_name(credential.name);
  row.set_host(credential.host);
  if (context.engine.credentials().MayChange(context.caller, credential))
    row.set_username(credential.username);
  row.set_scope(ToProto<v1::Scope>(credential.ownership.scope));
  if (!credential.ownership.tenant_id.empty()) row.set_tenant_id(credential.ownership.tenant_id);
  SetTime(credential.created_at, row.mutable_created_at());
  SetTime(credential.updated_at, row.mutable_updated_at());
  return row;
}

// Fills host, user name and the sealed secret of `spec`, whose id is known.
absl::Status Seal(const KeyRing* keys, const v1::CreateRegistryCredentialRequest& request,
                  CredentialSpec* spec) {
  if (keys == nullptr)
    return ApiError("UNAVAILABLE",
                    "the controller has no key to keep secrets with: the operator "
                    "finds the cause in its log");
  auto host = oci::RegistryHostOf(request.host());
  if (!host.ok()) return ValidationError("host", ToStd(host.status().message()));
  spec->host = *std::move(host);
  spec->username = request.has_json_key() ? kJsonKeyUser : request.username();
  spec->sealed = keys->Seal(request.has_json_key() ? request.json_key() : request.password(),
                            SealedTo(spec->id, spec->host, spec->username));
  return absl::OkStatus();
}

absl::StatusOr<v1::RegistryCredential> Create(const KeyRing* keys, CallContext& context,
                                              const v1::CreateRegistryCredentialRequest& request) {
  RETURN_IF_ERROR(ValidateCredential(request));
  CredentialSpec spec;
  spec.name = request.name();
  spec.scope = ToModel<Scope>(request.scope()).value_or(Scope::kTenant);
  if (spec.scope == Scope::kTenant && context.caller.tenant_id.empty())
    return ValidationError("scope", "the operator has no tenant; use platform, or a tenant's key");
  RETURN_IF_ERROR(CheckScope(context, spec.scope, "registry credential"));
  spec.id = context.engine.credentials().NewId(context.turn);
  RETURN_IF_ERROR(Seal(keys, request, &spec));
  ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> row,
                   context.engine.credentials().Create(context.turn, context.caller, spec));
  return Row(context, *row);
}

absl::StatusOr<v1::RegistryCredential> Replace(
    const KeyRing* keys, CallContext& context,
    const v1::ReplaceRegistryCredentialRequest& request) {
  v1::CreateRegistryCredentialRequest whole;
  whole.set_name(request.name());
  whole.set_host(request.host());
  if (request.has_username()) whole.set_username(request.username());
  if (request.has_password()) whole.set_password(request.password());
  if (request.has_json_key()) whole.set_json_key(request.json_key());
  Credentials& credentials = context.engine.credentials();
  ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> found,
                   credentials.Find(context.caller, request.name()));
  RETURN_IF_ERROR(CheckMayChange(context, found->ownership, "registry credential"));
  RETURN_IF_ERROR(ValidateCredential(whole));
  const auto scope = ToModel<Scope>(request.scope());
  if (scope && *scope != found->ownership.scope)
    return ValidationError("scope", "can't be changed: store another credential at that scope");
  CredentialSpec spec;
  spec.id = found->id;
  spec.name = found->name;
  RETURN_IF_ERROR(Seal(keys, whole, &spec));
  ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> row,
                   credentials.Replace(context.turn, context.caller, spec));
  return Row(context, *row);
}

absl::StatusOr<v1::ListRegistryCredentialsResponse> List(
    const Cursors& cursors, CallContext& context,
    const v1::ListRegistryCredentialsRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(context.caller.tenant_id, kList, request));
  const Page<RegistryCredential> found = context.engine.credentials().List(context.caller, page);
  v1::ListRegistryCredentialsResponse response;
  for (const auto& row : found.rows) *response.add_credentials() = Row(context, *row);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(context.caller.tenant_id, kList, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::RegistryCredential> Delete(CallContext& context,
                                              const v1::DeleteRegistryCredentialRequest& request) {
  Credentials& credentials = context.engine.credentials();
  ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> found,
                   credentials.Find(context.caller, request.name()));
  RETURN_IF_ERROR(CheckMayChange(context, found->ownership, "registry credential"));
  v1::RegistryCredential row = Row(context, *found);
  RETURN_IF_ERROR(credentials.Delete(context.turn, context.caller, request.name()));
  return row;
}

}  // namespace

void RegisterCredentialService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  using Answer = v1::RegistryCredential;
  const std::string service = "bunker.v1.RegistryCredentials.";
  const Cursors* cursors = deps.cursors;
  const KeyRing* keys = deps.keys;
  dispatcher->For(service + "CreateRegistryCredential")
      .Register<v1::CreateRegistryCredentialRequest, Answer>(
          [keys](CallContext& context, const v1::CreateRegistryCredentialRequest& request) {
            return Create(keys, context, request);
          });
  dispatcher->For(service + "ReplaceRegistryCredential")
      .Register<v1::ReplaceRegistryCredentialRequest, Answer>(
          [keys](CallContext& context, const v1::ReplaceRegistryCredentialRequest& request) {
            return Replace(keys, context, request);
          });
  dispatcher->For(service + "ListRegistryCredentials")
      .Register<v1::ListRegistryCredentialsRequest, v1::ListRegistryCredentialsResponse>(
          [cursors](CallContext& context, const v1::ListRegistryCredentialsRequest& request) {
            return List(*cursors, context, request);
          });
  dispatcher->For(service + "GetRegistryCredential")
      .Register<v1::GetRegistryCredentialRequest, Answer>(
          [](CallContext& context,
             const v1::GetRegistryCredentialRequest& request) -> absl::StatusOr<Answer> {
            ASSIGN_OR_RETURN(const RowPtr<RegistryCredential> found,
                             context.engine.credentials().Find(context.caller, request.name()));
            return Row(context, *found);
          });
  dispatcher->For(service + "DeleteRegistryCredential")
      .Register<v1::DeleteRegistryCredentialRequest, Answer>(Delete);
}

}  // namespace bunker::controller
