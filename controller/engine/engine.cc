#include "controller/engine/engine.h"

#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/engine/accounts.h"
#include "controller/engine/audit_log.h"
#include "controller/engine/bridges.h"
#include "controller/engine/credentials.h"
#include "controller/engine/quotas.h"
#include "controller/engine/scans.h"
#include "controller/engine/snapshots.h"
#include "controller/engine/state.h"
#include "controller/engine/worker_admin.h"

namespace bunker::controller {
namespace {

constexpr char kBootCounter[] = "boot_counter";

template <typename T>
absl::Status LoadTable(Store& store, Noun noun, Table<T>& table) {
  return store.Load(noun, [&](std::string_view id, std::string_view body) -> absl::Status {
    T row;
    const absl::Status status = DecodeRow(body, &row);
    if (!status.ok()) return Annotate(status, std::string(TableOf(noun)) + " " + std::string(id));
    table.LoadRow(std::move(row));
    return absl::OkStatus();
  });
}

}  // namespace

Engine::Engine(EngineOptions options, Rng& rng)
    : state_(std::make_unique<State>(std::move(options), rng)),
      accounts_(std::make_unique<Accounts>(*state_)),
      audit_(std::make_unique<AuditLog>()),
      bridges_(std::make_unique<Bridges>(*this, *state_)),
      credentials_(std::make_unique<Credentials>(*this, *state_)),
      worker_admin_(std::make_unique<WorkerAdmin>(*this)),
      quotas_(std::make_unique<Quotas>(*this)),
      scans_(std::make_unique<Scans>(*this, *state_)),
      snapshots_(std::make_unique<Snapshots>(*this, *state_)) {}

Engine::~Engine() = default;

Bridges& Engine::bridges() {
  return *bridges_;
}
Credentials& Engine::credentials() {
  return *credentials_;
}
WorkerAdmin& Engine::worker_admin() {
  return *worker_admin_;
}
Quotas& Engine::quotas() {
  return *quotas_;
}

void Engine::Visit(RowVisitor& visitor) const {
  for (const auto& [id, row] : state_->workers.rows()) visitor.OnWorker(*row);
  for (const auto& [id, row] : state_->images.rows()) visitor.OnImage(*row);
  for (const auto& [id, row] : state_->entries.rows()) visitor.OnCacheEntry(*row);
  for (const auto& [id, row] : state_->bunkers.rows()) visitor.OnBunker(*row);
}

const EngineOptions& Engine::options() const { return state_->options; }

Scans& Engine::scans() {
  return *scans_;
}

Snapshots& Engine::snapshots() {
  return *snapshots_;
}

absl::Status Engine::Load(Store& store, absl::Time now) {
  State& s = *state_;
  BUNKER_CHECK(!s.versions);
  RETURN_IF_ERROR(LoadTable(store, Noun::kMeta, s.meta));
  RETURN_IF_ERROR(LoadTable(store, Noun::kPartner, s.partners));
  RETURN_IF_ERROR(LoadTable(store, Noun::kTenant, s.tenants));
  RETURN_IF_ERROR(LoadTable(store, Noun::kUser, s.users));
  RETURN_IF_ERROR(LoadTable(store, Noun::kUserGroup, s.user_groups));
  RETURN_IF_ERROR(LoadTable(store, Noun::kApiKey, s.api_keys));
  RETURN_IF_ERROR(LoadTable(store, Noun::kJoinToken, s.join_tokens));
  RETURN_IF_ERROR(LoadTable(store, Noun::kWorker, s.workers));
  RETURN_IF_ERROR(LoadTable(store, Noun::kImage, s.images));
  RETURN_IF_ERROR(LoadTable(store, Noun::kGroup, s.groups));
  RETURN_IF_ERROR(LoadTable(store, Noun::kCacheEntry, s.entries));
  RETURN_IF_ERROR(LoadTable(store, Noun::kBunker, s.bunkers));
  RETURN_IF_ERROR(LoadTable(store, Noun::kIdempotency, s.idempotency));
  RETURN_IF_ERROR(LoadTable(store, Noun::kRegistryCredential, s.credentials));
  RETURN_IF_ERROR(LoadTable(store, Noun::kQuotaProfile, s.quota_profiles));
  RETURN_IF_ERROR(LoadTable(store, Noun::kQuotaAssignment, s.quota_assignments));
  RETURN_IF_ERROR(LoadTable(store, Noun::kScanReport, s.scan_reports));
  RETURN_IF_ERROR(LoadTable(store, Noun::kSnapshot, s.snapshots));
  RETURN_IF_ERROR(LoadTable(store, Noun::kBridge, s.bridges));

  const RowPtr<MetaRow> stored = s.meta.Find(kBootCounter);
  const MetaRow boot{kBootCounter, (stored == nullptr ? 0 : stored->value) + 1};
  RETURN_IF_ERROR(
      CommitAndWait(store, {{Noun::kMeta, boot.id, [boot] { return EncodeRow(boot); }}}));
  s.meta.LoadRow(boot);
  RETURN_IF_ERROR(audit_->Load(store));
  s.versions.emplace(boot.value);
  s.started_at = now;
  s.last_sweep = now;

  // The rows that workers are to have follow from the others; their versions were kept.
  for (const auto& [key, entry] : s.entries.rows()) {
    if (entry->assigned) s.desired.LoadRow(DesiredOf(*entry));
  }
  for (const auto& [id, bunker] : s.bunkers.rows()) {
    if (bunker->assigned) s.desired.LoadRow(DesiredOf(*bunker));
  }
  s.queue.Resume();
  scans_->Load(now);
  snapshots_->Load();
  return absl::OkStatus();
}

absl::StatusOr<AuthResult> Engine::Authenticate(const Turn& turn,
                                                const std::string& sha256) const {
  return accounts_->Authenticate(turn.now(), sha256);
}

Accounts& Engine::accounts() { return *accounts_; }
const Accounts& Engine::accounts() const { return *accounts_; }
AuditLog& Engine::audit() { return *audit_; }

bool Engine::MaySee(const Caller& caller, const Ownership& owner) const {
  if (caller.super_admin()) return true;
  if (caller.role == Role::kPartnerAdmin && owner.scope != Scope::kPlatform &&
      owner.partner_id == caller.partner_id) {
    return true;
  }
  return Reaches(caller.ownership(), owner);
}

bool Engine::MaySeeWorker(const Caller& caller, const Worker& worker) const {
  if (caller.platform_admin()) return true;
  if (worker.ownership.scope == Scope::kPlatform) return worker.shared;
  return MaySee(caller, worker.ownership);
}

bool Engine::MaySeeBunker(const Caller& caller, const Bunker& bunker) const {
  if (bunker.tenant_id == caller.tenant_id && bunker.owner == caller.user_id) return true;
  if (!caller.sees_all_bunkers) return false;
  return caller.super_admin() || bunker.tenant_id == caller.tenant_id ||
         (caller.role == Role::kPartnerAdmin && bunker.partner_id == caller.partner_id);
}

absl::StatusOr<RowPtr<IdempotencyRecord>> Engine::FindIdempotent(
    const Turn& turn, const std::string& tenant_id, const std::string& key,
    const std::string& request_hash) const {
  IdempotencyRecord probe;
  probe.tenant_id = tenant_id;
  probe.key = key;
  const RowPtr<IdempotencyRecord> found = state_->idempotency.Find(probe.id());
  if (found == nullptr || turn.now() - found->created_at >= kIdempotencyLifetime) return nullptr;
  if (found->request_hash != request_hash) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "IDEMPOTENCY_CONFLICT",
                       "this Idempotency-Key was used with another request: use a new key for a "
                       "new request");
  }
  return found;
}

absl::Status Engine::StoreIdempotent(Turn& turn, IdempotencyRecord record) {
  State& s = *state_;
  const bool known = s.idempotency.Find(record.id()) != nullptr;
  if (!known &&
      s.idempotency_of_tenant[record.tenant_id] >= s.options.max_idempotency_records_per_tenant) {
    return ReasonError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED",
                       "too many requests with an Idempotency-Key in a day: go on without, or "
                       "wait");
  }
  record.created_at = turn.now();
  s.idempotency.Put(turn, std::move(record));
  return absl::OkStatus();
}

}  // namespace bunker::controller
