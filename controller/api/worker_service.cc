#include "bunker/v1/worker.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

constexpr char kWorkers[] = "workers";

// The status filter is applied page by page: a page may be shorter than the limit, and still say
// that more follow.
absl::StatusOr<v1::ListWorkersResponse> ListWorkers(const Cursors& cursors, CallContext& context,
                                                    const v1::ListWorkersRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page,
                   cursors.PageOf(context.caller.tenant_id, kWorkers, request));
  const auto status = ToModel<WorkerStatus>(request.status());
  bool has_more = false;
  const std::vector<WorkerView> found =
      context.engine.ListWorkers(context.caller, page, &has_more);
  v1::ListWorkersResponse response;
  for (const WorkerView& view : found) {
    if (!status || view.worker->status == *status) ToMessage(view, response.add_workers());
  }
  response.set_has_more(has_more);
  if (has_more)
    response.set_next_cursor(
        cursors.Make(context.caller.tenant_id, kWorkers, found.back().worker->id));
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
  dispatcher->For("bunker.v1.Workers.GetWorker")
      .Register<v1::GetWorkerRequest, v1::Worker>(
          [](CallContext& context,
             const v1::GetWorkerRequest& request) -> absl::StatusOr<v1::Worker> {
            ASSIGN_OR_RETURN(const WorkerView view,
                             context.engine.FindWorker(context.caller, request.worker()));
            v1::Worker row;
            ToMessage(view, &row);
            return row;
          });
}

}  // namespace bunker::controller
