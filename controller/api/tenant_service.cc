// Partners and tenants.
#include <string>

#include "bunker/v1/account.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/account_fields.h"
#include "controller/api/convert.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

constexpr char kPartners[] = "partners";
constexpr char kTenants[] = "tenants";

absl::Status CheckName(std::string_view name) {
  Validator v;
  CheckAccountName("name", name, &v);
  return v.status();
}

absl::StatusOr<v1::Partner> PartnerOf(const absl::StatusOr<RowPtr<Partner>>& row) {
  if (!row.ok()) return row.status();
  v1::Partner message;
  ToMessage(**row, &message);
  return message;
}

absl::StatusOr<v1::Tenant> TenantOf(const absl::StatusOr<RowPtr<Tenant>>& row) {
  if (!row.ok()) return row.status();
  v1::Tenant message;
  ToMessage(**row, &message);
  return message;
}

absl::StatusOr<v1::Partner> CreatePartner(CallContext& context,
                                          const v1::CreatePartnerRequest& request) {
  RETURN_IF_ERROR(CheckName(request.name()));
  return PartnerOf(context.engine.accounts().CreatePartner(context.turn, request.name()));
}

absl::StatusOr<v1::Partner> UpdatePartner(CallContext& context,
                                          const v1::UpdatePartnerRequest& request) {
  Accounts& accounts = context.engine.accounts();
  if (!request.has_name()) return PartnerOf(accounts.FindPartner(request.partner()));
  RETURN_IF_ERROR(CheckName(request.name()));
  return PartnerOf(accounts.RenamePartner(context.turn, request.partner(), request.name()));
}

absl::StatusOr<v1::ListPartnersResponse> ListPartners(const Cursors& cursors, CallContext& context,
                                                      const v1::ListPartnersRequest& request) {
  const std::string& tenant = context.caller.tenant_id;
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(tenant, kPartners, request));
  const Page<Partner> found = context.engine.accounts().ListPartners(page);
  v1::ListPartnersResponse response;
  for (const RowPtr<Partner>& row : found.rows) ToMessage(*row, response.add_partners());
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(tenant, kPartners, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::Tenant> CreateTenant(CallContext& context,
                                        const v1::CreateTenantRequest& request) {
  RETURN_IF_ERROR(CheckName(request.name()));
  CreateTenantSpec spec;
  spec.name = request.name();
  spec.partner_id = request.partner_id();
  spec.status = ToModel<TenantStatus>(request.status()).value_or(TenantStatus::kActive);
  return TenantOf(context.engine.accounts().CreateTenant(context.turn, context.caller, spec));
}

absl::StatusOr<v1::Tenant> UpdateTenant(CallContext& context,
                                        const v1::UpdateTenantRequest& request) {
  UpdateTenantSpec spec;
  if (request.has_name()) {
    RETURN_IF_ERROR(CheckName(request.name()));
    spec.name = request.name();
  }
  spec.status = ToModel<TenantStatus>(request.status());
  return TenantOf(
      context.engine.accounts().UpdateTenant(context.turn, context.caller, request.tenant(), spec));
}

absl::StatusOr<v1::ListTenantsResponse> ListTenants(const Cursors& cursors, CallContext& context,
                                                    const v1::ListTenantsRequest& request) {
  const std::string& tenant = context.caller.tenant_id;
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(tenant, kTenants, request));
  const Page<Tenant> found =
      context.engine.accounts().ListTenants(context.caller, request.partner_id(), page);
  v1::ListTenantsResponse response;
  for (const RowPtr<Tenant>& row : found.rows) ToMessage(*row, response.add_tenants());
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(tenant, kTenants, found.rows.back()->id));
  return response;
}

void RegisterPartners(const Cursors* cursors, Dispatcher* dispatcher) {
  const std::string service = "bunker.v1.Partners.";
  dispatcher->For(service + "CreatePartner")
      .Register<v1::CreatePartnerRequest, v1::Partner>(CreatePartner);
  dispatcher->For(service + "ListPartners")
      .Register<v1::ListPartnersRequest, v1::ListPartnersResponse>(
          [cursors](CallContext& context, const v1::ListPartnersRequest& request) {
            return ListPartners(*cursors, context, request);
          });
  dispatcher->For(service + "GetPartner")
      .Register<v1::GetPartnerRequest, v1::Partner>(
          [](CallContext& context, const v1::GetPartnerRequest& request) {
            return PartnerOf(context.engine.accounts().FindPartner(request.partner()));
          });
  dispatcher->For(service + "UpdatePartner")
      .Register<v1::UpdatePartnerRequest, v1::Partner>(UpdatePartner);
  dispatcher->For(service + "DeletePartner")
      .Register<v1::DeletePartnerRequest, v1::Partner>([](CallContext& context,
                                                          const v1::DeletePartnerRequest& request) {
        return PartnerOf(context.engine.accounts().DeletePartner(context.turn, request.partner()));
      });
}

}  // namespace

void RegisterTenantService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  RegisterPartners(cursors, dispatcher);
  const std::string service = "bunker.v1.Tenants.";
  dispatcher->For(service + "CreateTenant")
      .Register<v1::CreateTenantRequest, v1::Tenant>(CreateTenant);
  dispatcher->For(service + "ListTenants")
      .Register<v1::ListTenantsRequest, v1::ListTenantsResponse>(
          [cursors](CallContext& context, const v1::ListTenantsRequest& request) {
            return ListTenants(*cursors, context, request);
          });
  dispatcher->For(service + "GetTenant")
      .Register<v1::GetTenantRequest, v1::Tenant>(
          [](CallContext& context, const v1::GetTenantRequest& request) {
            return TenantOf(context.engine.accounts().FindTenant(context.caller, request.tenant()));
          });
  dispatcher->For(service + "UpdateTenant")
      .Register<v1::UpdateTenantRequest, v1::Tenant>(UpdateTenant);
  dispatcher->For(service + "DeleteTenant")
      .Register<v1::DeleteTenantRequest, v1::Tenant>(
          [](CallContext& context, const v1::DeleteTenantRequest& request) {
            return TenantOf(context.engine.accounts().DeleteTenant(context.turn, context.caller,
                                                                   request.tenant()));
          });
}

}  // namespace bunker::controller
