// Shells: a command on a terminal for a client that types; and tickets for browsers.
#include <memory>
#include <string>
#include <utility>

#include "bunker/v1/process.pb.h"
#include "controller/api/exec_start.h"
#include "controller/api/output_feed.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

constexpr absl::Duration kWaitForBunker = absl::Seconds(60);
constexpr uint32_t kDefaultColumns = 80;
constexpr uint32_t kDefaultRows = 24;
constexpr char kDefaultShell[] =
    "if command -v bash >/dev/null 2>&1; then exec bash -l; fi; exec /bin/sh -l";

// Whether it may begin at all.
absl::Status CheckShell(const CallContext& context, const v1::OpenShellRequest& request,
                        const v1::ExecRequest& exec, bool at_terminal) {
  const auto bunker = context.engine.FindBunker(context.caller, request.bunker());
  if (!bunker.ok()) return bunker.status();
  const std::string& only = context.info.ticket_bunker_id;
  if (!only.empty() && only != (*bunker)->id)
    return ApiError("AUTH_TOKEN_INVALID", "the ticket is for another bunker; ask for one");
  if (!at_terminal) {
    return ValidationError("", "a shell is a WebSocket; connect with one, or run a command with "
                               "exec");
  }
  return ValidateExec(exec);
}

void Open(GuestTalkBackend* talks, CallContext& context, const v1::OpenShellRequest& request,
          std::shared_ptr<StreamSink> sink) {
  v1::ExecRequest exec;
  exec.mutable_command()->set_shell(request.command().empty() ? kDefaultShell : request.command());
  exec.set_user(request.user());
  const bool at_terminal = sink->AsTerminal() != nullptr;
  const absl::Status refused = CheckShell(context, request, exec, at_terminal);
  if (!refused.ok()) {
    context.audit->Refused(context.engine, context.turn, refused);
    context.turn.AfterCommit([sink, refused](const absl::Status&) { sink->End(refused); });
    return;
  }
  OutputFeed::Start start;
  link::v1::ExecStart& shell = *start.opening.mutable_exec();
  shell = ExecStartOf(exec, context.caller);
  shell.mutable_terminal()->set_columns(request.has_cols() ? request.cols() : kDefaultColumns);
  shell.mutable_terminal()->set_rows(request.has_rows() ? request.rows() : kDefaultRows);
  OutputFeed::Run(context, talks, request.bunker(), context.turn.now() + kWaitForBunker,
                  std::move(start), std::move(sink));
}

absl::StatusOr<v1::ShellTicket> CreateTicket(ShellTickets* tickets, CallContext& context,
                                             const v1::CreateShellTicketRequest& request) {
  const auto bunker = context.engine.FindBunker(context.caller, request.bunker());
  if (!bunker.ok()) return bunker.status();
  const auto sha256 = KeyHashOf(context.info.authorization);
  if (!sha256.ok()) return sha256.status();  // the operator has no key
  if (tickets == nullptr) return ApiError("UNAVAILABLE", "this controller gives out no tickets");
  v1::ShellTicket ticket;
  ticket.set_ticket(tickets->Issue(*sha256, (*bunker)->id, context.turn.now()));
  if (ticket.ticket().empty())
    return ApiError("RATE_LIMITED", "too many tickets are out; use those, or wait 30 s");
  ticket.mutable_expires_at()->set_seconds(
      absl::ToUnixSeconds(context.turn.now() + ShellTickets::kLife));
  return ticket;
}

}  // namespace

void RegisterShellService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  dispatcher->For("bunker.v1.Shells.OpenShell")
      .RegisterStream<v1::OpenShellRequest>(
          [talks = deps.talks](CallContext& context, const v1::OpenShellRequest& request,
                               std::shared_ptr<StreamSink> sink) {
            Open(talks, context, request, std::move(sink));
          });
  dispatcher->For("bunker.v1.Shells.CreateShellTicket")
      .Register<v1::CreateShellTicketRequest, v1::ShellTicket>(
          [tickets = deps.tickets](CallContext& context,
                                   const v1::CreateShellTicketRequest& request) {
            return CreateTicket(tickets, context, request);
          });
}

}  // namespace bunker::controller
