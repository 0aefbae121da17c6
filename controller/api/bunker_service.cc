#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "bunker/v1/bunker.pb.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"

namespace bunker::controller {
namespace {

constexpr char kBunkers[] = "bunkers";

using FinishBunker = Dispatcher::Finish<v1::Bunker>;

// The image behind the row, if it is still known: the operator's view, since the bunker was made
// from it with the right to.
RowPtr<Image> ImageOf(const Engine& engine, const std::string& image_id) {
  const absl::StatusOr<RowPtr<Image>> image = engine.FindImage(OperatorCaller(), image_id);
  return image.ok() ? *image : nullptr;
}

v1::Bunker Row(const Engine& engine, const Bunker& bunker) {
  v1::Bunker row;
  ToMessage(bunker, ImageOf(engine, bunker.image_id).get(), &row);
  return row;
}

CreateBunkerSpec SpecOf(const v1::BunkerSpec& spec, absl::Time received_at) {
  CreateBunkerSpec out;
  out.image = spec.image();
  out.name = spec.name();
  out.lifecycle_mode =
      ToModel<LifecycleMode>(spec.lifecycle_mode()).value_or(LifecycleMode::kEphemeral);
  out.network_profile =
      ToModel<NetworkProfile>(spec.network_profile()).value_or(NetworkProfile::kIsolated);
  if (spec.has_cpu_millicores()) out.cpu_millicores = spec.cpu_millicores();
  if (spec.has_memory_mb()) out.memory_mb = spec.memory_mb();
  if (spec.has_disk_mb()) out.disk_mb = static_cast<uint32_t>(spec.disk_mb());
  if (spec.has_max_lifetime_s()) out.max_lifetime_s = spec.max_lifetime_s();
  if (spec.has_idle_timeout_s()) out.idle_timeout_s = spec.idle_timeout_s();
  if (const std::string type = ModelEnumName(v1::SessionType_descriptor(), spec.session_type());
      !type.empty())
    out.session_type = type;
  out.session_ref = spec.session_ref();
  out.label_set.insert(spec.label_set().begin(), spec.label_set().end());
  out.worker_labels.insert(spec.worker_labels().begin(), spec.worker_labels().end());
  out.env_vars.insert(spec.env_vars().begin(), spec.env_vars().end());
  out.gpu_count = spec.gpu_count();
  out.received_at = received_at;
  return out;
}

// The permissions that they need are in the table of rules; all but two are closed to everyone,
// since nothing enforces them yet.
absl::Status CheckProfile(NetworkProfile profile) {
  if (profile == NetworkProfile::kIsolated || profile == NetworkProfile::kRegistry)
    return absl::OkStatus();
  return ApiError("NETWORK_PROFILE_DENIED",
                  fmt::format("network_profile {} is not available yet, so it is closed; use "
                              "isolated or registry", NameOf(profile)));
}

// What the closed profiles take, with one of the others.
absl::Status CheckNetworkFields(const v1::BunkerSpec& spec) {
  Validator v;
  if (spec.network_allowlist_size() > 0)
    v.Refuse("network_allowlist", "is not available yet; leave it out");
  if (spec.interfaces_size() > 0) v.Refuse("interfaces", "is not available yet; leave it out");
  return v.status();
}

absl::StatusOr<absl::Duration> WaitOf(bool has_wait_s, uint32_t wait_s) {
  if (!has_wait_s) return absl::ZeroDuration();
  if (wait_s > kMaxWaitSeconds)
    return ValidationError("wait_s", fmt::format("must be from 0 to {}", kMaxWaitSeconds));
  return absl::Seconds(wait_s);
}

struct Waiting {
  Core::WaitId id = 0;
  FinishBunker finish;  // null once it was answered

  void Finish(absl::StatusOr<v1::Bunker> answer) {
    if (finish) std::exchange(finish, nullptr)(std::move(answer));
  }
};

// After the commit: waits for one of `statuses`, then answers with the row as it then is. A client
// that goes away is waited for no longer.
void AnswerWhen(CallContext& context, RowPtr<Bunker> bunker, std::set<BunkerStatus> statuses,
                absl::Duration wait, FinishBunker finish) {
  Core* core = &context.core;
  const absl::Time deadline = context.turn.now() + wait;
  auto waiting = std::make_shared<Waiting>();
  waiting->finish = std::move(finish);
  if (context.info.cancel != nullptr) {
    *context.info.cancel = [core, waiting] {
      core->CancelWait(waiting->id);
      waiting->Finish(ApiError("UNAVAILABLE", "the client went away"));
    };
  }
  context.turn.AfterCommit([core, bunker, statuses = std::move(statuses), deadline,
                            waiting](const absl::Status& committed) mutable {
    if (!committed.ok()) return waiting->Finish(committed);
    if (!waiting->finish) return;
    waiting->id = core->WaitForBunker(bunker, std::move(statuses), deadline,
                                      [core, bunker, waiting](RowPtr<Bunker> last) {
      const RowPtr<Bunker> row = last != nullptr ? last : bunker;
      core->Post([row, waiting](Engine& engine, Turn& turn) {
        v1::Bunker message = Row(engine, *row);
        turn.AfterCommit([message = std::move(message), waiting](const absl::Status&) {
          waiting->Finish(message);
        });
      });
    });
  });
}

void AnswerNow(CallContext& context, absl::StatusOr<v1::Bunker> answer, FinishBunker finish) {
  context.turn.AfterCommit([answer = std::move(answer), finish](const absl::Status& committed) {
    finish(committed.ok() ? answer : absl::StatusOr<v1::Bunker>(committed));
  });
}

absl::StatusOr<RowPtr<Bunker>> Create(CallContext& context, const v1::BunkerSpec& spec) {
  const CreateBunkerSpec wanted = SpecOf(spec, context.info.received_at);
  RETURN_IF_ERROR(CheckProfile(wanted.network_profile));
  RETURN_IF_ERROR(CheckNetworkFields(spec));
  RETURN_IF_ERROR(ValidateBunkerSpec(spec));
  if (context.caller.tenant_id.empty())
    return ValidationError("image",
                           "the operator has no tenant to own a bunker; use a tenant's key");
  PlacementExplanation why;
  auto created = context.engine.CreateBunker(context.turn, context.caller, wanted, &why);
  if (!created.ok() && !why.error_code.empty() && ReasonOf(created.status()) == why.error_code)
    return WithPlacement(created.status(), ToMessage(why));
  return created;
}

void CreateBunker(CallContext& context, const v1::CreateBunkerRequest& request,
                  FinishBunker finish) {
  const auto wait = WaitOf(request.has_wait_s(), request.wait_s());
  if (!wait.ok()) return AnswerNow(context, wait.status(), std::move(finish));
  const auto bunker = Create(context, request.bunker());
  if (!bunker.ok()) return AnswerNow(context, bunker.status(), std::move(finish));
  const v1::Bunker row = Row(context.engine, **bunker);
  if (context.remember) context.remember(row);
  if (*wait == absl::ZeroDuration()) return AnswerNow(context, row, std::move(finish));
  AnswerWhen(context, *bunker, {BunkerStatus::kRunning, BunkerStatus::kFailed}, *wait,
             std::move(finish));
}

void GetBunker(CallContext& context, const v1::GetBunkerRequest& request, FinishBunker finish) {
  const auto status = ToModel<BunkerStatus>(request.wait_status());
  if (request.has_wait_s() && !status)
    return AnswerNow(context, ValidationError("wait_s", "needs a wait_status to wait for"),
                     std::move(finish));
  const auto wait = WaitOf(status.has_value(), request.has_wait_s() ? request.wait_s()
                                                                    : kMaxWaitSeconds);
  if (!wait.ok()) return AnswerNow(context, wait.status(), std::move(finish));
  const auto bunker = context.engine.FindBunker(context.caller, request.bunker());
  if (!bunker.ok()) return AnswerNow(context, bunker.status(), std::move(finish));
  if (!status || *wait == absl::ZeroDuration())
    return AnswerNow(context, Row(context.engine, **bunker), std::move(finish));
  AnswerWhen(context, *bunker, {*status}, *wait, std::move(finish));
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
    *response.add_bunkers() = Row(context.engine, *bunker);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(context.caller.tenant_id, kBunkers, found.last_id));
  return response;
}

}  // namespace

void RegisterBunkerService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  dispatcher->For("bunker.v1.Bunkers.CreateBunker")
      .RegisterAsync<v1::CreateBunkerRequest, v1::Bunker>(CreateBunker);
  dispatcher->For("bunker.v1.Bunkers.GetBunker")
      .RegisterAsync<v1::GetBunkerRequest, v1::Bunker>(GetBunker);
  dispatcher->For("bunker.v1.Bunkers.ListBunkers")
      .Register<v1::ListBunkersRequest, v1::ListBunkersResponse>(
          [cursors](CallContext& context, const v1::ListBunkersRequest& request) {
            return ListBunkers(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.Bunkers.DeleteBunker")
      .Register<v1::DeleteBunkerRequest, v1::Bunker>(
          [](CallContext& context,
             const v1::DeleteBunkerRequest& request) -> absl::StatusOr<v1::Bunker> {
            ASSIGN_OR_RETURN(const RowPtr<Bunker> bunker,
                             context.engine.DeleteBunker(context.turn, context.caller,
                                                         request.bunker()));
            return Row(context.engine, *bunker);
          });
}

}  // namespace bunker::controller
