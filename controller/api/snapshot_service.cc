// Snapshots of bunkers.
#include "controller/engine/snapshots.h"

#include <string>

#include "bunker/v1/snapshot.pb.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

constexpr char kList[] = "snapshots";

v1::Snapshot Row(const Snapshot& snapshot) {
  v1::Snapshot row;
  row.set_id(snapshot.id);
  row.set_name(snapshot.name);
  row.set_bunker_id(snapshot.bunker_id);
  if (!snapshot.image_digest.empty()) row.set_image_digest(snapshot.image_digest);
  row.set_size_bytes(snapshot.size_bytes);
  row.set_worker_id(snapshot.worker_id);
  row.set_status(ToProto<v1::SnapshotStatus>(snapshot.status));
  row.set_tenant_id(snapshot.tenant_id);
  if (!snapshot.owner.empty()) row.set_owner(snapshot.owner);
  row.set_image_id(snapshot.image_id);
  row.set_image(snapshot.image_name);
  row.set_disk_mb(snapshot.disk_mb);
  row.set_memory(snapshot.memory);
  if (snapshot.memory) {
    row.set_memory_mb(snapshot.memory_mb);
    row.set_vcpus(snapshot.vcpus());
  }
  if (!snapshot.error_code.empty()) {
    row.mutable_error()->set_code(snapshot.error_code);
    row.mutable_error()->set_message(snapshot.error_message);
  }
  row.set_deleting(snapshot.deleting);
  SetTime(snapshot.created_at, row.mutable_created_at());
  if (snapshot.ready_at) SetTime(*snapshot.ready_at, row.mutable_ready_at());
  return row;
}

absl::StatusOr<v1::Snapshot> Take(CallContext& context, const v1::CreateSnapshotRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Snapshot> row,
                   context.engine.snapshots().Take(context.turn, context.caller, request.bunker(),
                                                   {request.name(), request.memory()}));
  return Row(*row);
}

absl::StatusOr<v1::ListSnapshotsResponse> List(const Cursors& cursors, CallContext& context,
                                               const v1::ListSnapshotsRequest& request) {
  ASSIGN_OR_RETURN(const PageSpec page, cursors.PageOf(context.caller.tenant_id, kList, request));
  const Page<Snapshot> found =
      context.engine.snapshots().List(context.caller, request.bunker(), page);
  v1::ListSnapshotsResponse response;
  for (const auto& row : found.rows) *response.add_snapshots() = Row(*row);
  response.set_has_more(found.has_more);
  if (found.has_more)
    response.set_next_cursor(cursors.Make(context.caller.tenant_id, kList, found.rows.back()->id));
  return response;
}

absl::StatusOr<v1::Snapshot> Get(CallContext& context, const v1::GetSnapshotRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Snapshot> row,
                   context.engine.snapshots().Find(context.caller, request.snapshot()));
  return Row(*row);
}

absl::StatusOr<v1::Snapshot> Delete(CallContext& context,
                                    const v1::DeleteSnapshotRequest& request) {
  ASSIGN_OR_RETURN(const RowPtr<Snapshot> row,
                   context.engine.snapshots().Delete(context.turn, context.caller,
                                                     request.snapshot()));
  return Row(*row);
}

}  // namespace

void RegisterSnapshotService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  const Cursors* cursors = deps.cursors;
  dispatcher->For("bunker.v1.Snapshots.CreateSnapshot")
      .Register<v1::CreateSnapshotRequest, v1::Snapshot>(Take);
  dispatcher->For("bunker.v1.Snapshots.ListSnapshots")
      .Register<v1::ListSnapshotsRequest, v1::ListSnapshotsResponse>(
          [cursors](CallContext& context, const v1::ListSnapshotsRequest& request) {
            return List(*cursors, context, request);
          });
  dispatcher->For("bunker.v1.Snapshots.GetSnapshot")
      .Register<v1::GetSnapshotRequest, v1::Snapshot>(Get);
  dispatcher->For("bunker.v1.Snapshots.DeleteSnapshot")
      .Register<v1::DeleteSnapshotRequest, v1::Snapshot>(Delete);
}

}  // namespace bunker::controller
