// The handlers of the public API, one file per noun. Each registers its RPCs with the dispatcher.
#pragma once

#include "controller/api/dispatcher.h"
#include "controller/api/exec_backend.h"
#include "controller/api/guest_talk.h"
#include "controller/api/paging.h"
#include "controller/api/shell_tickets.h"
#include "controller/engine/audit_reader.h"

namespace bunker {
class KeyRing;
}
#include "controller/scan/scan_work.h"

namespace bunker::controller {

// All must outlive the dispatcher. `exec`, `scans` and `talks` may be null: what needs them
// answers UNAVAILABLE.
struct ServiceDeps {
  const Cursors* cursors = nullptr;
  ExecBackend* exec = nullptr;
  std::string version;
  AuditReader* audit = nullptr;  // may be null: reading the audit rows answers UNAVAILABLE
  const KeyRing* keys = nullptr;  // null: no secret can be stored (UNAVAILABLE)
  uint32_t modelarts_size_mib = 16384;  // cap on the files of images that come through it
  ScanWork* scans = nullptr;
  GuestTalkBackend* talks = nullptr;  // null: streams of commands answer UNAVAILABLE
  ShellTickets* tickets = nullptr;    // null: there are none
};

void RegisterImageService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterCredentialService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterBridgeService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterGroupService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterWorkerService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterWorkerTokenService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterBunkerService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterLifecycleService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterLogService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterSnapshotService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterPlacementService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterQuotaService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterExecService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterProcessService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterShellService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterTenantService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterUserService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterApiKeyService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterAuditService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterFileService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterScanService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterAccountService(const ServiceDeps& deps, Dispatcher* dispatcher);
void RegisterModelArtsService(const ServiceDeps& deps, Dispatcher* dispatcher);

// All of the above; dies where an RPC of the table has no handler.
void RegisterAllServices(const ServiceDeps& deps, Dispatcher* dispatcher);

}  // namespace bunker::controller
