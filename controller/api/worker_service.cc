#include <algorithm>
#include <utility>
#include <vector>

#include "bunker/v1/worker.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/auth.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"
#include "controller/api/validate.h"
#include "controller/engine/worker_admin.h"

namespace bunker::controller {
namespace {

constexpr char kWorkers[] = "workers";

using WorkerAnswer = absl::StatusOr<v1::Worker>;

v1::Worker Row(const WorkerView& view) {
  v1::Worker row;
  ToMessage(view, &row);
  return row;
}

absl::StatusOr<v1::ListWorkersResponse> ListWorkers(const Cursors& cursors, CallContext& context,
                                                    const v1::ListWorkersRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page,
                   cursors.PageOf(context.caller.tenant_id, kWorkers, request));
  bool has_more = false;
  const std::vector<WorkerView> found = context.engine.ListWorkers(
      context.caller, ToModel<WorkerStatus>(request.status()), page, &has_more);
  v1::ListWorkersResponse response;
  for (const WorkerView& view : found) ToMessage(view, response.add_workers());
  response.set_has_more(has_more);
  if (has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kWorkers, found.back().worker->id));
  return response;
}

WorkerAnswer GetWorker(CallContext& context, const v1::GetWorkerRequest& request) {
  ASSIGN_OR_RETURN(const WorkerView view,
                   context.engine.FindWorker(context.caller, request.worker()));
  return Row(view);
}

// The worker that is to be changed by one who has the permission for its scope.
absl::StatusOr<std::string> FindToChange(CallContext& context, const std::string& ref) {
  ASSIGN_OR_RETURN(const WorkerView view, context.engine.FindWorker(context.caller, ref));
  RETURN_IF_ERROR(CheckMayChange(context, view.worker->ownership, "worker"));
  return view.worker->id;
}

WorkerAnswer UpdateWorker(CallContext& context, const v1::UpdateWorkerRequest& request) {
  RETURN_IF_ERROR(ValidateWorkerLabels(request.labels()));
  ASSIGN_OR_RETURN(const std::string id, FindToChange(context, request.worker()));
  const auto& given = request.update_mask().paths();
  if (request.labels().empty() && std::count(given.begin(), given.end(), "labels") == 0)
    return ValidationError("labels", "is required; {} takes all of them away");
  ASSIGN_OR_RETURN(const WorkerView view, context.engine.worker_admin().SetLabels(
                                              context.turn, context.caller, id,
                                              {request.labels().begin(), request.labels().end()}));
  return Row(view);
}

WorkerAnswer DrainWorker(CallContext& context, const v1::DrainWorkerRequest& request) {
  RETURN_IF_ERROR(ValidateDrain(request));
  ASSIGN_OR_RETURN(const std::string id, FindToChange(context, request.worker()));
  DrainSpec spec;
  if (request.has_deadline_s()) spec.deadline = absl::Seconds(request.deadline_s());
  spec.then = ToModel<DrainThen>(request.then()).value_or(DrainThen::kWait);
  ASSIGN_OR_RETURN(const WorkerView view,
                   context.engine.worker_admin().Drain(context.turn, context.caller, id, spec));
  return Row(view);
}

WorkerAnswer ResumeWorker(CallContext& context, const v1::ResumeWorkerRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, FindToChange(context, request.worker()));
  ASSIGN_OR_RETURN(const WorkerView view,
                   context.engine.worker_admin().Resume(context.turn, context.caller, id));
  return Row(view);
}

WorkerAnswer RemoveWorker(CallContext& context, const v1::RemoveWorkerRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, FindToChange(context, request.worker()));
  ASSIGN_OR_RETURN(const WorkerView view, context.engine.worker_admin().Remove(
                                              context.turn, context.caller, id, request.force()));
  return Row(view);
}

void Fill(const std::vector<CollectRow>& rows,
          google::protobuf::RepeatedPtrField<v1::CachedImage>* out) {
  for (const CollectRow& row : rows) {
    v1::CachedImage* to = out->Add();
    to->set_image(row.image->id);
    to->set_image_name(row.image->name);
    to->set_bytes(row.bytes);
    SetTime(row.last_used_at, to->mutable_last_used_at());
    to->set_reason(row.reason);
  }
}

absl::StatusOr<v1::CollectWorkerResponse> CollectWorker(CallContext& context,
                                                        const v1::CollectWorkerRequest& request) {
  ASSIGN_OR_RETURN(const WorkerView view,
                   context.engine.FindWorker(context.caller, request.worker()));
  RETURN_IF_ERROR(CheckMayChange(context, view.worker->ownership, "worker"));
  ASSIGN_OR_RETURN(const CollectReport report,
                   context.engine.CollectWorker(context.turn, context.caller, view.worker->id,
                                                request.dry_run()));
  v1::CollectWorkerResponse response;
  response.set_dry_run(request.dry_run());
  Fill(report.evicted, response.mutable_would_evict());
  Fill(report.pinned, response.mutable_pinned());
  return response;
}

}  // namespace

void RegisterWorkerService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  dispatcher->For("bunker.v1.Workers.ListWorkers")
      .Register<v1::ListWorkersRequest, v1::ListWorkersResponse>(
          [cursors](CallContext& context, const v1::ListWorkersRequest& request) {
            return ListWorkers(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.Workers.CollectWorker")
      .Register<v1::CollectWorkerRequest, v1::CollectWorkerResponse>(CollectWorker);
  dispatcher->For("bunker.v1.Workers.GetWorker")
      .Register<v1::GetWorkerRequest, v1::Worker>(GetWorker);
  dispatcher->For("bunker.v1.Workers.UpdateWorker")
      .Register<v1::UpdateWorkerRequest, v1::Worker>(UpdateWorker);
  dispatcher->For("bunker.v1.Workers.DrainWorker")
      .Register<v1::DrainWorkerRequest, v1::Worker>(DrainWorker);
  dispatcher->For("bunker.v1.Workers.ResumeWorker")
      .Register<v1::ResumeWorkerRequest, v1::Worker>(ResumeWorker);
  dispatcher->For("bunker.v1.Workers.RemoveWorker")
      .Register<v1::RemoveWorkerRequest, v1::Worker>(RemoveWorker);
}

}  // namespace bunker::controller
