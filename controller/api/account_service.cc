#include "bunker/v1/account.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

absl::StatusOr<v1::WhoAmIResponse> WhoAmI(CallContext& context, const v1::WhoAmIRequest&) {
  v1::WhoAmIResponse response;
  response.set_role(std::string(NameOf(context.caller.role)));
  for (const std::string& permission : context.caller.permissions)
    response.add_permissions(permission);
  if (context.info.trusted) return response;  // the operator: no user, no tenant
  ASSIGN_OR_RETURN(const std::string hash, KeyHashOf(context.info.authorization));
  ASSIGN_OR_RETURN(const AuthResult auth, context.engine.Authenticate(context.turn, hash));
  const auto set = [](const std::string& id, const std::string& name, v1::NamedRef* ref) {
    ref->set_id(id);
    ref->set_name(name);
  };
  set(auth.user->id, auth.user->name, response.mutable_user());
  set(auth.tenant->id, auth.tenant->name, response.mutable_tenant());
  set(auth.partner->id, auth.partner->name, response.mutable_partner());
  response.set_key_id(auth.key->id);
  if (auth.key->expires_at) SetTime(*auth.key->expires_at, response.mutable_expires_at());
  return response;
}

}  // namespace

void RegisterAccountService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  dispatcher->For("bunker.v1.Accounts.WhoAmI")
      .Register<v1::WhoAmIRequest, v1::WhoAmIResponse>(WhoAmI);
  const std::string version = deps.version;
  dispatcher->For("bunker.v1.Health.GetHealth")
      .Register<v1::GetHealthRequest, v1::HealthStatus>(
          [version](CallContext&, const v1::GetHealthRequest&) -> absl::StatusOr<v1::HealthStatus> {
            v1::HealthStatus status;
            status.set_state("ok");
            status.set_version(version);
            return status;
          });
  dispatcher->For("bunker.v1.Health.GetReady")
      .Register<v1::GetReadyRequest, v1::HealthStatus>(
          [version](CallContext& context,
                    const v1::GetReadyRequest&) -> absl::StatusOr<v1::HealthStatus> {
            if (!context.core.store_has_room())
              return ApiError("UNAVAILABLE", "the controller's disk is full; free some room on it");
            v1::HealthStatus status;
            status.set_state("ok");
            status.set_version(version);
            return status;
          });
}

void RegisterAllServices(const ServiceDeps& deps, Dispatcher* dispatcher) {
  RegisterImageService(deps, dispatcher);
  RegisterCredentialService(deps, dispatcher);
  RegisterBridgeService(deps, dispatcher);
  RegisterGroupService(deps, dispatcher);
  RegisterWorkerService(deps, dispatcher);
  RegisterWorkerTokenService(deps, dispatcher);
  RegisterBunkerService(deps, dispatcher);
  RegisterLifecycleService(deps, dispatcher);
  RegisterLogService(deps, dispatcher);
  RegisterSnapshotService(deps, dispatcher);
  RegisterPlacementService(deps, dispatcher);
  RegisterQuotaService(deps, dispatcher);
  RegisterExecService(deps, dispatcher);
  RegisterProcessService(deps, dispatcher);
  RegisterShellService(deps, dispatcher);
  RegisterScanService(deps, dispatcher);
  RegisterFileService(deps, dispatcher);
  RegisterAccountService(deps, dispatcher);
  RegisterAuditService(deps, dispatcher);
  RegisterTenantService(deps, dispatcher);
  RegisterUserService(deps, dispatcher);
  RegisterApiKeyService(deps, dispatcher);
  RegisterModelArtsService(deps, dispatcher);
  BUNKER_CHECK(dispatcher->CheckComplete().ok());
}

}  // namespace bunker::controller
