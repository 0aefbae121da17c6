// What a bunker goes through between its creation and its end.
#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "bunker/v1/bunker.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/if_match.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

using Step = absl::StatusOr<RowPtr<Bunker>> (Engine::*)(Turn&, const Caller&, const std::string&,
                                                        std::optional<uint32_t>);

template <typename Request>
void RegisterStep(Dispatcher* dispatcher, const char* method, Step step) {
  dispatcher->For(method).Register<Request, v1::Bunker>(
      [step](CallContext& context, const Request& request) -> absl::StatusOr<v1::Bunker> {
        ASSIGN_OR_RETURN(const auto incarnation, IncarnationOf(context.info.if_match));
        ASSIGN_OR_RETURN(const RowPtr<Bunker> bunker,
                         (context.engine.*step)(context.turn, context.caller, request.bunker(),
                                                incarnation));
        return BunkerRow(context.engine, *bunker);
      });
}

// REST answers these by itself, with server-sent events.
template <typename Request>
void RegisterEvents(Dispatcher* dispatcher, const char* method) {
  dispatcher->For(method).Register<Request, v1::Bunker>(
      [](CallContext&, const Request&) -> absl::StatusOr<v1::Bunker> {
        return ValidationError("Accept",
                               "must be text/event-stream; over gRPC call Bunkers.WatchBunkers");
      });
}

// What a change names: the mask's fields, or where there is none (gRPC), those that are set.
UpdateBunkerSpec SpecOf(const v1::UpdateBunkerRequest& request) {
  const auto given = [&](const char* name, bool set) {
    const auto& paths = request.update_mask().paths();
    return paths.empty() ? set : std::find(paths.begin(), paths.end(), name) != paths.end();
  };
  UpdateBunkerSpec spec;
  if (given("name", !request.name().empty())) spec.name = request.name();
  if (given("label_set", request.label_set_size() > 0))
    spec.label_set.emplace(request.label_set().begin(), request.label_set().end());
  if (given("idle_timeout_s", request.has_idle_timeout_s()))
    spec.idle_timeout_s = request.idle_timeout_s();
  if (given("max_lifetime_s", request.has_max_lifetime_s()))
    spec.max_lifetime_s = request.max_lifetime_s();
  return spec;
}

absl::StatusOr<v1::Bunker> UpdateBunker(CallContext& context,
                                        const v1::UpdateBunkerRequest& request) {
  const UpdateBunkerSpec spec = SpecOf(request);
  RETURN_IF_ERROR(ValidateUpdateBunker(request, spec.name.has_value()));
  ASSIGN_OR_RETURN(const auto incarnation, IncarnationOf(context.info.if_match));
  ASSIGN_OR_RETURN(const RowPtr<Bunker> bunker,
                   context.engine.UpdateBunker(context.turn, context.caller, request.bunker(),
                                               incarnation, spec));
  return BunkerRow(context.engine, *bunker);
}

}  // namespace

// An entity tag's quotes are fine, and so is "*", which any bunker fits.
absl::StatusOr<std::optional<uint32_t>> IncarnationOf(std::string_view if_match) {
  if (if_match.empty() || if_match == "*") return std::nullopt;
  std::string_view number = if_match;
  if (number.size() > 2 && number.front() == '"' && number.back() == '"')
    number = number.substr(1, number.size() - 2);
  uint32_t incarnation = 0;
  if (!absl::SimpleAtoi(std::string(number), &incarnation))
    return ValidationError("If-Match", "must be an incarnation, as the bunker's row has it");
  return incarnation;
}

void RegisterLifecycleService(const ServiceDeps&, Dispatcher* dispatcher) {
  RegisterEvents<v1::ListBunkerEventsRequest>(dispatcher, "bunker.v1.Bunkers.ListBunkerEvents");
  RegisterEvents<v1::GetBunkerEventsRequest>(dispatcher, "bunker.v1.Bunkers.GetBunkerEvents");
  dispatcher->For("bunker.v1.Bunkers.WatchBunkers").RegisterStream();
  RegisterStep<v1::StopBunkerRequest>(dispatcher, "bunker.v1.Bunkers.StopBunker",
                                      &Engine::StopKeeping);
  RegisterStep<v1::StartBunkerRequest>(dispatcher, "bunker.v1.Bunkers.StartBunker",
                                       &Engine::StartAgain);
  RegisterStep<v1::RestartBunkerRequest>(dispatcher, "bunker.v1.Bunkers.RestartBunker",
                                         &Engine::RestartBunker);
  RegisterStep<v1::PauseBunkerRequest>(dispatcher, "bunker.v1.Bunkers.PauseBunker",
                                       &Engine::PauseBunker);
  RegisterStep<v1::ResumeBunkerRequest>(dispatcher, "bunker.v1.Bunkers.ResumeBunker",
                                        &Engine::ResumeBunker);
  dispatcher->For("bunker.v1.Bunkers.UpdateBunker")
      .Register<v1::UpdateBunkerRequest, v1::Bunker>(UpdateBunker);
}

}  // namespace bunker::controller
