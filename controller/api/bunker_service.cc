#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "bunker/v1/bunker.pb.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/api/bunker_spec.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/if_match.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/snapshots.h"

namespace bunker::controller {
namespace {

constexpr char kBunkers[] = "bunkers";

using FinishBunker = Dispatcher::Finish<v1::Bunker>;
using FinishCreate = Dispatcher::Finish<v1::CreateBunkerResponse>;
using Rows = std::vector<RowPtr<Bunker>>;

absl::StatusOr<absl::Duration> WaitOf(bool has_wait_s, uint32_t wait_s) {
  if (!has_wait_s) return absl::ZeroDuration();
  if (wait_s > kMaxWaitSeconds)
    return ValidationError("wait_s", fmt::format("must be from 0 to {}", kMaxWaitSeconds));
  return absl::Seconds(wait_s);
}

using FinishRows = std::function<void(absl::StatusOr<Rows>)>;

struct Waiting {
  std::vector<Core::WaitId> ids;
  Rows rows;
  size_t left = 0;
  FinishRows finish;  // null once it was answered

  void Finish(absl::StatusOr<Rows> answer) {
    if (finish) std::exchange(finish, nullptr)(std::move(answer));
  }
};

// After the commit: waits until each row is in one of `statuses`, or final, then answers with the
// rows as they are. A client that goes away is waited for no longer.
void AnswerWhen(CallContext& context, Rows rows, std::set<BunkerStatus> statuses,
                absl::Duration wait, FinishRows finish) {
  Core* core = &context.core;
  const absl::Time deadline = context.turn.now() + wait;
  auto waiting = std::make_shared<Waiting>();
  waiting->rows = std::move(rows);
  waiting->left = waiting->rows.size();
  waiting->finish = std::move(finish);
  if (context.info.cancel != nullptr) {
    *context.info.cancel = [core, waiting] {
      for (const Core::WaitId id : waiting->ids) core->CancelWait(id);
      waiting->Finish(ApiError("UNAVAILABLE", "the client went away"));
    };
  }
  context.turn.AfterCommit(
      [core, statuses = std::move(statuses), deadline, waiting](const absl::Status& committed) {
        if (!committed.ok()) return waiting->Finish(committed);
        if (!waiting->finish) return;
        const Rows first = waiting->rows;
        for (size_t i = 0; i < first.size(); ++i) {
          waiting->ids.push_back(
              core->WaitForBunker(first[i], statuses, deadline, [i, waiting](RowPtr<Bunker> last) {
                if (last != nullptr) waiting->rows[i] = std::move(last);
                if (--waiting->left == 0) waiting->Finish(waiting->rows);
              }));
        }
      });
}

// Turns what AnswerWhen() brought into an answer, in an event of its own: it needs the engine.
template <typename Response, typename MakeResponse>
FinishRows AnswerWith(Core& core, MakeResponse make, Dispatcher::Finish<Response> finish) {
  return [&core, make, finish](absl::StatusOr<Rows> rows) {
    if (!rows.ok()) return finish(rows.status());
    core.Post([rows = *std::move(rows), make, finish](Engine& engine, Turn& turn) {
      turn.AfterCommit(
          [response = make(engine, rows), finish](const absl::Status&) { finish(response); });
    });
  };
}

template <typename Response>
void AnswerNow(CallContext& context, absl::StatusOr<Response> answer,
               Dispatcher::Finish<Response> finish) {
  context.turn.AfterCommit([answer = std::move(answer), finish](const absl::Status& committed) {
    finish(committed.ok() ? answer : absl::StatusOr<Response>(committed));
  });
}

absl::StatusOr<Rows> Create(CallContext& context, const v1::BunkerSpec& spec) {
  ASSIGN_OR_RETURN(const CreateBunkerSpec wanted, BunkerSpecOf(context, spec));
  PlacementExplanation why;
  auto created = context.engine.CreateBunkers(context.turn, context.caller, wanted, &why);
  if (!created.ok() && !why.error_code.empty() && ReasonOf(created.status()) == why.error_code)
    return WithPlacement(created.status(), ToMessage(why));
  return created;
}

void CreateBunker(CallContext& context, const v1::CreateBunkerRequest& request,
                  FinishCreate finish) {
  using Response = absl::StatusOr<v1::CreateBunkerResponse>;
  const auto wait = WaitOf(request.has_wait_s(), request.wait_s());
  if (!wait.ok()) return AnswerNow(context, Response(wait.status()), std::move(finish));
  auto rows = Create(context, request.bunker());
  if (!rows.ok()) return AnswerNow(context, Response(rows.status()), std::move(finish));
  const auto make = [is_list = request.bunker().has_replicas()](const Engine& engine,
                                                                const Rows& bunkers) {
    v1::CreateBunkerResponse response;
    if (!is_list) *response.mutable_bunker() = BunkerRow(engine, *bunkers.front());
    for (size_t i = 0; is_list && i < bunkers.size(); ++i)
      *response.add_bunkers() = BunkerRow(engine, *bunkers[i]);
    return response;
  };
  const v1::CreateBunkerResponse response = make(context.engine, *rows);
  if (context.remember) context.remember(response);
  const bool starts = !request.bunker().has_start() || request.bunker().start();
  if (*wait == absl::ZeroDuration() || !starts)
    return AnswerNow(context, Response(response), std::move(finish));
  AnswerWhen(context, *std::move(rows), {BunkerStatus::kRunning, BunkerStatus::kFailed}, *wait,
             AnswerWith<v1::CreateBunkerResponse>(context.core, make, std::move(finish)));
}

void GetBunker(CallContext& context, const v1::GetBunkerRequest& request, FinishBunker finish) {
  using Response = absl::StatusOr<v1::Bunker>;
  const auto status = ToModel<BunkerStatus>(request.wait_status());
  if (request.has_wait_s() && !status)
    return AnswerNow(context,
                     Response(ValidationError("wait_s", "needs a wait_status to wait for")),
                     std::move(finish));
  const auto wait = WaitOf(status.has_value(), request.has_wait_s() ? request.wait_s()
                                                                    : kMaxWaitSeconds);
  if (!wait.ok()) return AnswerNow(context, Response(wait.status()), std::move(finish));
  const auto bunker = context.engine.FindBunker(context.caller, request.bunker());
  if (!bunker.ok()) return AnswerNow(context, Response(bunker.status()), std::move(finish));
  if (!status || *wait == absl::ZeroDuration())
    return AnswerNow(context, Response(BunkerRow(context.engine, **bunker)), std::move(finish));
  const auto make = [](const Engine& engine, const Rows& rows) {
    return BunkerRow(engine, *rows.front());
  };
  AnswerWhen(context, {*bunker}, {*status}, *wait,
             AnswerWith<v1::Bunker>(context.core, make, std::move(finish)));
}

absl::StatusOr<v1::ListBunkersResponse> ListBunkers(const Cursors& cursors, CallContext& context,
                                                    const v1::ListBunkersRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page,
                   cursors.PageOf(context.caller.tenant_id, kBunkers, request));
  BunkerFilter filter;
  if (const auto status = ToModel<BunkerStatus>(request.status())) filter.statuses = {*status};
  filter.lifecycle = ToModel<LifecycleMode>(request.lifecycle());
  filter.labels.insert(request.label().begin(), request.label().end());
  const Page<Bunker> found = context.engine.ListBunkers(context.caller, filter, page);
  v1::ListBunkersResponse response;
  for (const RowPtr<Bunker>& bunker : found.rows)
    *response.add_bunkers() = BunkerRow(context.engine, *bunker);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(context.caller.tenant_id, kBunkers, found.last_id));
  return response;
}

absl::StatusOr<v1::ListNetworkEventsResponse> ListNetworkEvents(
    CallContext& context, const v1::ListNetworkEventsRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<NetworkEvent> events,
                   context.engine.NetworkEvents(context.caller, request.bunker()));
  v1::ListNetworkEventsResponse response;
  for (const NetworkEvent& event : events) {
    v1::NetworkEvent* out = response.add_events();
    SetTime(event.at, out->mutable_at());
    out->set_decision(event.allowed ? v1::NETWORK_DECISION_ALLOWED : v1::NETWORK_DECISION_DENIED);
    out->set_rule(event.rule);
    out->set_proto(event.proto);
    if (!event.dst.empty()) out->set_dst(event.dst);
    if (event.port != 0) out->set_port(event.port);
    if (!event.name.empty()) out->set_name(event.name);
    out->set_count(event.count);
  }
  return response;
}

}  // namespace

void RegisterBunkerService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  dispatcher->For("bunker.v1.Bunkers.CreateBunker")
      .RegisterAsync<v1::CreateBunkerRequest, v1::CreateBunkerResponse>(CreateBunker);
  dispatcher->For("bunker.v1.Bunkers.GetBunker")
      .RegisterAsync<v1::GetBunkerRequest, v1::Bunker>(GetBunker);
  dispatcher->For("bunker.v1.Bunkers.ListBunkers")
      .Register<v1::ListBunkersRequest, v1::ListBunkersResponse>(
          [cursors](CallContext& context, const v1::ListBunkersRequest& request) {
            return ListBunkers(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.Bunkers.ListNetworkEvents")
      .Register<v1::ListNetworkEventsRequest, v1::ListNetworkEventsResponse>(ListNetworkEvents);
  dispatcher->For("bunker.v1.Bunkers.DeleteBunker")
      .Register<v1::DeleteBunkerRequest, v1::Bunker>(
          [](CallContext& context,
             const v1::DeleteBunkerRequest& request) -> absl::StatusOr<v1::Bunker> {
            ASSIGN_OR_RETURN(const auto incarnation, IncarnationOf(context.info.if_match));
            Engine& engine = context.engine;
            ASSIGN_OR_RETURN(const RowPtr<Bunker> bunker,
                             request.snapshot()
                                 ? engine.snapshots().TakeAndEnd(context.turn, context.caller,
                                                                 request.bunker(), incarnation)
                                 : engine.DeleteBunker(context.turn, context.caller,
                                                       request.bunker(), incarnation));
            return BunkerRow(engine, *bunker);
          });
}

}  // namespace bunker::controller
