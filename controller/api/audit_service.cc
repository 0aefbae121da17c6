// Reading the audit chain.
#include <optional>
#include <string>
#include <utility>

#include "bunker/v1/audit.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/engine/audit_log.h"
#include "controller/engine/audit_reader.h"

namespace bunker::controller {
namespace {

constexpr char kAudit[] = "audit";
constexpr char kAuditOldest[] = "audit/oldest";

using FinishList = Dispatcher::Finish<v1::ListAuditResponse>;

absl::StatusOr<std::optional<absl::Time>> TimeOf(std::string_view field, bool has,
                                                 const std::string& text) {
  if (!has) return std::nullopt;
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error) || time == absl::InfiniteFuture() ||
      time == absl::InfinitePast()) {
    return ValidationError(field, "must be a time such as 2026-01-31T12:00:00Z (RFC 3339)");
  }
  return time;
}

void ToMessage(const AuditRecord& record, v1::AuditRow* out) {
  const AuditEntry& row = record.entry;
  out->set_seq(row.seq);
  SetTime(absl::FromUnixMillis(row.at_unix_ms), out->mutable_at());
  out->set_actor(row.actor);
  out->set_actor_tenant_id(row.actor_tenant_id);
  out->set_key_id(row.key_id);
  out->set_tenant_id(row.tenant_id);
  out->set_partner_id(row.partner_id);
  out->set_action(row.action);
  out->set_target(row.target);
  out->set_detail(row.detail);
  out->set_outcome(row.outcome);
  out->set_request_id(row.request_id);
  out->set_suppressed(row.suppressed);
  out->set_prev_hash(row.prev_hash);
  out->set_hash(row.hash);
  out->set_intact(record.intact);
}

absl::StatusOr<AuditQuery> QueryOf(const Cursors& cursors, const Caller& caller,
                                   const v1::ListAuditRequest& request) {
  AuditQuery query;
  query.oldest_first = request.has_after_seq();
  ASSIGN_OR_RETURN(
      const PageSpec page,
      cursors.PageOf(caller.tenant_id, query.oldest_first ? kAuditOldest : kAudit, request));
  query.limit = page.limit;
  query.from = page.after_id;
  if (query.from.empty() && query.oldest_first) query.from = AuditRowId(request.after_seq());
  query.actor = request.actor();
  query.action = request.action();
  query.target = request.target();
  query.outcome = request.outcome();
  ASSIGN_OR_RETURN(query.since, TimeOf("since", request.has_since(), request.since()));
  ASSIGN_OR_RETURN(query.until, TimeOf("until", request.has_until(), request.until()));
  if (caller.platform_admin()) return query;
  if (caller.role == Role::kPartnerAdmin) {
    query.partner_id = caller.partner_id;
  } else {
    query.tenant_id = caller.tenant_id;
  }
  return query;
}

v1::ListAuditResponse ResponseOf(const Cursors& cursors, const std::string& tenant_id,
                                 bool oldest_first, const AuditPage& page) {
  v1::ListAuditResponse response;
  for (const AuditRecord& record : page.records) ToMessage(record, response.add_rows());
  response.set_has_more(!page.next.empty());
  if (!page.next.empty()) {
    response.set_next_cursor(
        cursors.Make(tenant_id, oldest_first ? kAuditOldest : kAudit, page.next));
  }
  return response;
}

void ListAudit(const Cursors* cursors, AuditReader* reader, CallContext& context,
               const v1::ListAuditRequest& request, FinishList finish) {
  const auto query = QueryOf(*cursors, context.caller, request);
  if (!query.ok() || reader == nullptr) {
    const absl::Status status =
        query.ok() ? ApiError("UNAVAILABLE", "this controller keeps no audit rows; start one")
                   : query.status();
    context.turn.AfterCommit([finish, status](const absl::Status&) { finish(status); });
    return;
  }
  Core* core = &context.core;
  // Only what is durable is read: this turn's own rows are, once the read begins.
  context.turn.AfterCommit([cursors, reader, core, query = *query, finish,
                            tenant = context.caller.tenant_id](const absl::Status& committed) {
    if (!committed.ok()) return finish(committed);
    reader->Read(query, [cursors, core, finish, tenant,
                         oldest_first = query.oldest_first](absl::StatusOr<AuditPage> page) {
      core->Post(
          [cursors, finish, tenant, oldest_first, page = std::move(page)](Engine&, Turn& turn) {
            turn.AfterCommit([cursors, finish, tenant, oldest_first, page](const absl::Status&) {
              if (!page.ok()) return finish(page.status());
              finish(ResponseOf(*cursors, tenant, oldest_first, *page));
            });
          });
    });
  });
}

}  // namespace

void RegisterAuditService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  AuditReader* reader = deps.audit;
  dispatcher->For("bunker.v1.Audit.ListAudit")
      .RegisterAsync<v1::ListAuditRequest, v1::ListAuditResponse>(
          [cursors, reader](CallContext& context, const v1::ListAuditRequest& request,
                            FinishList finish) {
            ListAudit(cursors, reader, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Audit.GetAuditHead")
      .Register<v1::GetAuditHeadRequest, v1::AuditHead>(
          [](CallContext& context,
             const v1::GetAuditHeadRequest&) -> absl::StatusOr<v1::AuditHead> {
            v1::AuditHead head;
            head.set_seq(context.engine.audit().head().seq);
            head.set_hash(context.engine.audit().head().hash);
            head.set_sees_all(context.caller.platform_admin());
            return head;
          });
}

}  // namespace bunker::controller
