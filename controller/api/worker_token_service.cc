#include <utility>

#include "bunker/v1/worker.pb.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/worker_admin.h"

namespace bunker::controller {
namespace {

constexpr char kTokens[] = "worker_tokens";
constexpr uint32_t kDefaultTtlSeconds = 600;

v1::WorkerToken Row(const JoinToken& token) {
  v1::WorkerToken row;
  row.set_id(token.id);
  row.set_name(token.worker_name);
  row.set_scope(ToProto<v1::Scope>(token.ownership.scope));
  if (!token.ownership.tenant_id.empty()) row.set_tenant_id(token.ownership.tenant_id);
  if (!token.ownership.partner_id.empty()) row.set_partner_id(token.ownership.partner_id);
  row.set_shared(token.shared);
  for (const auto& [label, value] : token.labels) (*row.mutable_labels())[label] = value;
  SetTime(token.created_at, row.mutable_created_at());
  SetTime(token.expires_at, row.mutable_expires_at());
  if (token.used_at) SetTime(*token.used_at, row.mutable_used_at());
  if (!token.worker_id.empty()) row.set_worker_id(token.worker_id);
  return row;
}

absl::StatusOr<v1::WorkerToken> Create(CallContext& context,
                                       const v1::CreateWorkerTokenRequest& request) {
  RETURN_IF_ERROR(ValidateWorkerToken(request));
  const Scope scope = ToModel<Scope>(request.scope()).value_or(Scope::kTenant);
  if (scope == Scope::kTenant && context.caller.tenant_id.empty() && !request.has_tenant_id())
    return ValidationError("tenant_id", "is required: the operator has no tenant of its own");
  RETURN_IF_ERROR(CheckScope(context, scope, "worker"));
  const std::string token = NewJoinToken();
  CreateJoinTokenSpec spec;
  ASSIGN_OR_RETURN(spec.ownership,
                   context.engine.worker_admin().OwnerFor(
                       context.caller, scope, request.tenant_id(), request.partner_id()));
  spec.worker_name = request.name();
  spec.sha256 = Sha256Hex(token);
  spec.shared = request.shared();
  spec.labels.insert(request.labels().begin(), request.labels().end());
  spec.ttl = absl::Seconds(request.has_ttl_s() ? request.ttl_s() : kDefaultTtlSeconds);
  ASSIGN_OR_RETURN(const RowPtr<JoinToken> row, context.engine.CreateJoinToken(context.turn, spec));
  v1::WorkerToken response = Row(*row);
  response.set_token(token);
  return response;
}

// A repeat gets the row without the token: it is shown once, and kept nowhere in clear.
void CreateToken(CallContext& context, const v1::CreateWorkerTokenRequest& request,
                 Dispatcher::Finish<v1::WorkerToken> finish) {
  absl::StatusOr<v1::WorkerToken> token = Create(context, request);
  if (token.ok() && context.remember) {
    v1::WorkerToken without = *token;
    without.clear_token();
    context.remember(without);
  }
  context.turn.AfterCommit([token = std::move(token), finish](const absl::Status& committed) {
    finish(committed.ok() ? token : absl::StatusOr<v1::WorkerToken>(committed));
  });
}

absl::StatusOr<v1::ListWorkerTokensResponse> List(const Cursors& cursors, CallContext& context,
                                                  const v1::ListWorkerTokensRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(context.caller.tenant_id, kTokens, request));
  const Page<JoinToken> found = context.engine.worker_admin().ListTokens(context.caller, page);
  v1::ListWorkerTokensResponse response;
  for (const RowPtr<JoinToken>& token : found.rows) *response.add_tokens() = Row(*token);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kTokens, found.rows.back()->id));
  return response;
}

}  // namespace

void RegisterWorkerTokenService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  dispatcher->For("bunker.v1.WorkerTokens.CreateWorkerToken")
      .RegisterAsync<v1::CreateWorkerTokenRequest, v1::WorkerToken>(CreateToken);
  dispatcher->For("bunker.v1.WorkerTokens.ListWorkerTokens")
      .Register<v1::ListWorkerTokensRequest, v1::ListWorkerTokensResponse>(
          [cursors](CallContext& context, const v1::ListWorkerTokensRequest& request) {
            return List(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.WorkerTokens.GetWorkerToken")
      .Register<v1::GetWorkerTokenRequest, v1::WorkerToken>(
          [](CallContext& context,
             const v1::GetWorkerTokenRequest& request) -> absl::StatusOr<v1::WorkerToken> {
            ASSIGN_OR_RETURN(const RowPtr<JoinToken> token, context.engine.worker_admin().FindToken(
                                                                context.caller, request.token()));
            return Row(*token);
          });
  dispatcher->For("bunker.v1.WorkerTokens.DeleteWorkerToken")
      .Register<v1::DeleteWorkerTokenRequest, v1::WorkerToken>(
          [](CallContext& context,
             const v1::DeleteWorkerTokenRequest& request) -> absl::StatusOr<v1::WorkerToken> {
            ASSIGN_OR_RETURN(const RowPtr<JoinToken> token, context.engine.worker_admin().FindToken(
                                                                context.caller, request.token()));
            RETURN_IF_ERROR(CheckMayChange(context, token->ownership, "worker token"));
            RETURN_IF_ERROR(
                context.engine.worker_admin()
                    .DeleteToken(context.turn, context.caller, request.token())
                    .status());
            return Row(*token);
          });
}

}  // namespace bunker::controller
