// INTERFACE STABLE: additions only. Implementations are in the *_flow.cc files, one per noun.
//
// The controller's state and the only code that changes it. Everything is in memory; what is
// written goes through the Turn to the store. Nothing here blocks, reads a clock or draws
// randomness but from what it is given, so that a seed replays a run.
//
// Rules for callers
//   - Every call comes from the core's loop, inside an event (Core::Post). Results are rows as
//     they are in memory, which may be ahead of the disk: tell them to anyone only from
//     Turn::AfterCommit, reads included.
//   - A call that returns an error has changed nothing.
//   - Errors carry a reason of the contract's table (common/base/reason.h). What a caller may not
//     see is NOT_FOUND, with the same message as what does not exist. Which permission an
//     operation needs is the API's table; who owns what is decided here.
//   - Arguments are validated for form by the API; what the engine itself relies on it checks.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/rng.h"
#include "controller/engine/specs.h"
#include "controller/engine/turn.h"
#include "controller/policy/cache_room.h"
#include "controller/store/store.h"

namespace bunker::controller {

class Accounts;
class AuditLog;
class Bridges;
class Credentials;
class Quotas;
class Scans;
class Snapshots;
class WorkerAdmin;

// What Engine::Visit() shows. The rows are valid during the call.
class RowVisitor {
 public:
  virtual ~RowVisitor() = default;
  virtual void OnWorker(const Worker& row) = 0;
  virtual void OnImage(const Image& row) = 0;
  virtual void OnCacheEntry(const CacheEntry& row) = 0;
  virtual void OnBunker(const Bunker& row) = 0;
};

class Engine {
 public:
  // `rng` must outlive the engine. It gives ids, default names and tie-breaks, no secrets.
  Engine(EngineOptions options, Rng& rng);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Reads everything from `store`, and raises and commits the boot counter that makes row versions
  // unique for ever. Blocking; once, before any other call. `now` is where liveness counts from.
  absl::Status Load(Store& store, absl::Time now);

  const EngineOptions& options() const;

  // Every row of these kinds. For counting them once; changes come by the ChangeSet.
  void Visit(RowVisitor& visitor) const;

  // ---- accounts -------------------------------------------------------------------------------

  // The key's owner. AUTH_TOKEN_INVALID (unknown, revoked, owner disabled or tenant suspended) or
  // SESSION_EXPIRED. `sha256`: 64 hex digits of the whole key. Cheap; call it in the same event as
  // the operation.
  absl::StatusOr<AuthResult> Authenticate(const Turn& turn, const std::string& sha256) const;
  // Partners, tenants, users, user groups and keys (accounts.h).
  Accounts& accounts();
  const Accounts& accounts() const;
  // What was done, chained (audit_log.h).
  AuditLog& audit();

  // ---- images (image_flow.cc) -----------------------------------------------------------------

  // SLUG_CONFLICT for a taken name; AUTHZ_PERMISSION_DENIED for a scope above the caller's role.
  absl::StatusOr<RowPtr<Image>> RegisterImage(Turn& turn, const Caller& caller,
                                              const RegisterImageSpec& spec);

  // By id, uuid, name, name@sha256:…, repository@sha256:… or repository:tag. Deactivated ones are
  // found too. Names: the caller's tenant, then its partner, then the platform. The rules for
  // references are in image_ref.cc; one that fits several images is a VALIDATION_ERROR.
  absl::StatusOr<RowPtr<Image>> FindImage(const Caller& caller, const std::string& ref) const;

  // For the ModelArts adapter. By id alone, what is PUBLIC included; null where the caller may not
  // read it. And whether the caller's tenant has registered that path.
  RowPtr<Image> FindImageById(const Caller& caller, const std::string& id) const;
  std::vector<std::string> UsersWhoSee(const Ownership& owner, size_t at_most) const;
  bool FindBySwrPath(const Caller& caller, const std::string& canonical_path) const;

  Page<Image> ListImages(const Caller& caller, const ImageFilter& filter,
                         const PageSpec& page) const;

  // Of an image that the caller may change. A change of lazy_pull or defaults holds for new
  // bunkers.
  absl::StatusOr<RowPtr<Image>> UpdateImage(Turn& turn, const Caller& caller,
                                            const std::string& image_ref,
                                            const UpdateImageSpec& spec);

  // Counters of an image that the caller found.
  WarmSummary WarmOf(const std::string& image_id) const;
  CacheSummary CacheSummaryOf(const Caller& caller, const std::string& image_id) const;

  // One row per targeted worker that the caller may see, by worker name.
  absl::StatusOr<std::vector<CacheView>> ListCache(const Caller& caller,
                                                   const std::string& image_ref) const;

  // The rows that changed after `after` (a CacheDelta::upto), oldest change first; all of them
  // where it is null or too old to tell. `live`: the caller has watched since, and so has seen
  // what was forgotten.
  absl::StatusOr<CacheDelta> CacheSince(const Caller& caller, const std::string& image_ref,
                                        std::optional<uint64_t> after, bool live = false) const;

  // Wants the image everywhere its groups say, and gives failed rows a new attempt now.
  // IMAGE_INACTIVE for a deactivated one.
  absl::StatusOr<WarmSummary> Warm(Turn& turn, const Caller& caller, const std::string& image_ref);

  // Soft; repeatable. The sweep evicts later.
  absl::StatusOr<RowPtr<Image>> Deactivate(Turn& turn, const Caller& caller,
                                           const std::string& image_ref);

  // Registry credentials (credentials.h).
  Credentials& credentials();
  // Bridges that bunkers attach to (bridges.h).
  Bridges& bridges();

  // Whether the caller may see that worker / what it owns. For filtering streams of changes.
  bool MaySee(const Caller& caller, const Ownership& owner) const;
  bool MaySeeWorker(const Caller& caller, const Worker& worker) const;
  bool MaySeeBunker(const Caller& caller, const Bunker& bunker) const;

  // ---- availability groups (group_flow.cc) ----------------------------------------------------

  // SLUG_CONFLICT for a name taken by the same owner.
  absl::StatusOr<RowPtr<Group>> CreateGroup(Turn& turn, const Caller& caller,
                                            const CreateGroupSpec& spec);
  // By id or name.
  absl::StatusOr<RowPtr<Group>> FindGroup(const Caller& caller, const std::string& ref) const;
  Page<Group> ListGroups(const Caller& caller, const PageSpec& page) const;
  // SLUG_CONFLICT for a taken name.
  absl::StatusOr<RowPtr<Group>> PatchGroup(Turn& turn, const Caller& caller, const std::string& ref,
                                           const PatchGroupSpec& spec);
  // What changing the members like that would pull and evict. Changes nothing.
  absl::StatusOr<GroupPlan> PlanGroup(const Turn& turn, const Caller& caller,
                                      const std::string& ref, const GroupChange& change) const;
  // Removes it. Its pairs are no longer wanted, but where another group has them.
  absl::Status DeleteGroup(Turn& turn, const Caller& caller, const std::string& ref);
  // All four are idempotent and return the group as it then is. Attaching warms what it implies.
  absl::StatusOr<RowPtr<Group>> AttachImage(Turn& turn, const Caller& caller,
                                            const std::string& group, const std::string& image);
  absl::StatusOr<RowPtr<Group>> DetachImage(Turn& turn, const Caller& caller,
                                            const std::string& group, const std::string& image);
  absl::StatusOr<RowPtr<Group>> AttachWorker(Turn& turn, const Caller& caller,
                                             const std::string& group, const std::string& worker);
  absl::StatusOr<RowPtr<Group>> DetachWorker(Turn& turn, const Caller& caller,
                                             const std::string& group, const std::string& worker);

  // ---- workers and the link (worker_flow.cc) --------------------------------------------------

  // By id or name.
  absl::StatusOr<WorkerView> FindWorker(const Caller& caller, const std::string& ref) const;
  std::vector<WorkerView> ListWorkers(const Caller& caller, std::optional<WorkerStatus> status,
                                      const PageSpec& page, bool* has_more) const;
  // Tokens, labels, drain, resume, removal.
  WorkerAdmin& worker_admin();

  // The token itself is the caller's: made by the system's generator, never given to the engine.
  absl::StatusOr<RowPtr<JoinToken>> CreateJoinToken(Turn& turn, const CreateJoinTokenSpec& spec);

  // Evicts what is on the worker and neither a group nor a bunker needs, without waiting for the
  // sweep; with `dry_run` only says what that is.
  absl::StatusOr<CollectReport> CollectWorker(Turn& turn, const Caller& caller,
                                              const std::string& ref, bool dry_run);

  // Spends the token and gives the worker its credential. A worker of that name that has joined
  // before keeps its id and loses its old credential. AUTH_TOKEN_INVALID for an unknown, used,
  // expired token or one for another name: the same message for all.
  absl::StatusOr<RowPtr<Worker>> Join(Turn& turn, const std::string& token_sha256,
                                      const std::string& worker_name,
                                      const std::string& credential_sha256);

  // Whose credential it is. AUTH_TOKEN_INVALID.
  absl::StatusOr<RowPtr<Worker>> AuthenticateWorker(const std::string& credential_sha256) const;

  // An agent said hello: the worker is online, and these are its rows. A later one replaces it.
  // Keep `desired` up to date from ChangeSet::desired (register the session in AfterCommit): the
  // engine's own tables may be ahead of the disk.
  absl::StatusOr<WorkerSession> ConnectWorker(Turn& turn, const std::string& worker_id,
                                              const WorkerFacts& facts,
                                              const std::string& boot_id,
                                              const std::string& agent_version);
  // The stream ended. The worker stays online until it has been silent for offline_after.
  void DisconnectWorker(Turn& turn, const std::string& worker_id);
  // Any frame. Writes nothing, but brings a worker back that was offline.
  void OnHeartbeat(Turn& turn, const std::string& worker_id);
  // The worker has told all that it knew at connect: what it did not name is not there.
  void OnObservationsSynced(Turn& turn, const std::string& worker_id,
                            const std::vector<std::string>& names_held);
  // Rows for unknown things are taken note of, so that the worker is told to end them.
  void OnObservation(Turn& turn, const std::string& worker_id, const ObservedRow& row);
  void OnObservationRemoved(Turn& turn, const std::string& worker_id, const std::string& name);
  // The agent will not take that version of a row.
  void OnRejection(Turn& turn, const std::string& worker_id, const std::string& name,
                   uint64_t version, const std::string& code, const std::string& message);
  absl::Time LastHeartbeat(const std::string& worker_id) const;

  // ---- bunkers (bunker_flow.cc) ---------------------------------------------------------------

  // Chooses the worker and takes its room in the same turn. The row comes back `provisioning`.
  // `why`, may be null, gets the rows of a placement error (NO_SUITABLE_WORKER,
  // WORKER_UNAVAILABLE).
  absl::StatusOr<RowPtr<Bunker>> CreateBunker(Turn& turn, const Caller& caller,
                                              const CreateBunkerSpec& spec,
                                              PlacementExplanation* why);
  // The same for the first and its copies (spec.replicas), in the order of their numbers: all of
  // them, or an error and none.
  absl::StatusOr<std::vector<RowPtr<Bunker>>> CreateBunkers(Turn& turn, const Caller& caller,
                                                            const CreateBunkerSpec& spec,
                                                            PlacementExplanation* why);
  // What a create would find. Changes nothing.
  absl::StatusOr<PlacementExplanation> ExplainPlacement(const Turn& turn, const Caller& caller,
                                                        const CreateBunkerSpec& spec) const;

  // By id, uuid, or the name of a live one.
  absl::StatusOr<RowPtr<Bunker>> FindBunker(const Caller& caller, const std::string& ref) const;
  // A page may be shorter than its limit though more follows: go on from its last_id.
  Page<Bunker> ListBunkers(const Caller& caller, const BunkerFilter& filter,
                           const PageSpec& page) const;
  // The rows that changed after `after` (a BunkerDelta::upto); the live ones where it is null or
  // too old to tell. `bunker_id`: of that one alone, "" = all that the caller sees. `live`: the
  // caller has watched since.
  BunkerDelta BunkersSince(const Caller& caller, const std::string& bunker_id,
                           std::optional<uint64_t> after, bool live = false) const;
  // Legal in every status, repeatable. Wait for terminated_at with Core::WaitForBunker.
  // What its worker last told of its network, newest first.
  absl::StatusOr<std::vector<NetworkEvent>> NetworkEvents(const Caller& caller,
                                                          const std::string& ref) const;
  absl::StatusOr<RowPtr<Bunker>> DeleteBunker(Turn& turn, const Caller& caller,
                                              const std::string& ref,
                                              std::optional<uint32_t> incarnation = std::nullopt);

  // ---- between creation and end (lifecycle_flow.cc) -------------------------------------------
  // All are repeatable: what is so already, or on its way, is left as it is. `incarnation`: the one
  // that the caller knows; another is STALE_INCARNATION. BUNKER_NOT_RUNNING for one that has ended.

  // LIFECYCLE_MODE_DENIED for an ephemeral one. The VM ends, its disk stays.
  absl::StatusOr<RowPtr<Bunker>> StopKeeping(Turn& turn, const Caller& caller,
                                             const std::string& ref,
                                             std::optional<uint32_t> incarnation);
  // The next incarnation on the same worker; WORKER_UNAVAILABLE and BUNKER_QUOTA_EXCEEDED where
  // there is no room for it now. A paused one is resumed.
  absl::StatusOr<RowPtr<Bunker>> StartAgain(Turn& turn, const Caller& caller,
                                            const std::string& ref,
                                            std::optional<uint32_t> incarnation);
  // Both in one step, from any status.
  absl::StatusOr<RowPtr<Bunker>> RestartBunker(Turn& turn, const Caller& caller,
                                               const std::string& ref,
                                               std::optional<uint32_t> incarnation);
  absl::StatusOr<RowPtr<Bunker>> PauseBunker(Turn& turn, const Caller& caller,
                                             const std::string& ref,
                                             std::optional<uint32_t> incarnation);
  absl::StatusOr<RowPtr<Bunker>> ResumeBunker(Turn& turn, const Caller& caller,
                                              const std::string& ref,
                                              std::optional<uint32_t> incarnation);
  absl::StatusOr<RowPtr<Bunker>> UpdateBunker(Turn& turn, const Caller& caller,
                                              const std::string& ref,
                                              std::optional<uint32_t> incarnation,
                                              const UpdateBunkerSpec& spec);

  // That the caller may see, and that runs (BUNKER_NOT_RUNNING, which says why, else).
  absl::StatusOr<RowPtr<Bunker>> FindRunningBunker(const Caller& caller,
                                                   const std::string& ref) const;
  // An exec, file or shell begins: it must be running (BUNKER_NOT_RUNNING, which says why, else).
  // Until EndExec the bunker is not idle. Neither writes anything.
  absl::StatusOr<RowPtr<Bunker>> BeginExec(Turn& turn, const Caller& caller,
                                           const std::string& ref);
  void EndExec(Turn& turn, const std::string& bunker_id);

  // ---- quotas (quotas.h) ----------------------------------------------------------------------
  Quotas& quotas();
  // ---- scans (scans.h) ------------------------------------------------------------------------

  Scans& scans();
  // Snapshots of bunkers' disks (snapshots.h).
  Snapshots& snapshots();
  // For a scan that needs a file nobody has: has it made there. It goes again with the scan.
  void WantForScan(Turn& turn, const Image& image, const std::string& worker_id);

  // ---- idempotency ----------------------------------------------------------------------------

  // The stored first answer, null where there is none, or IDEMPOTENCY_CONFLICT.
  absl::StatusOr<RowPtr<IdempotencyRecord>> FindIdempotent(const Turn& turn,
                                                           const std::string& tenant_id,
                                                           const std::string& key,
                                                           const std::string& request_hash) const;
  // In the same event as the effect, so that they are one commit.
  absl::Status StoreIdempotent(Turn& turn, IdempotencyRecord record);

  // ---- level-triggering (fanout_flow.cc) ------------------------------------------------------

  // Brings the cache rows in line with every image, group and worker that changed since, and gives
  // those whose turn it is to their workers. The core calls it after each event; cheap where
  // nothing changed.
  void Settle(Turn& turn);

  // ---- time (timers.cc) -----------------------------------------------------------------------

  // Lifetimes, deadlines, retries, liveness, and every sweep_period the sweep. About once a second.
  // Bounded: true where more is due already, for another call soon.
  bool Tick(Turn& turn);

  // The sweep by itself: evicts what nothing wants or uses, forgets what is old.
  void Sweep(Turn& turn);
  bool LazyKept(const Image& image, const CacheEntry& entry) const;

  // For tests and an oracle: the first broken invariant, or OK. Slow.
  absl::Status CheckInvariants() const;

  // For the engine's own files (state.h).
  struct State;

 private:
  friend class Bridges;
  friend class Credentials;
  friend class Quotas;
  friend class Scans;
  friend class Snapshots;
  friend class WorkerAdmin;
  // group_flow.cc
  absl::StatusOr<RowPtr<Group>> FindGroupToChange(const Caller& caller,
                                                  const std::string& ref) const;
  absl::StatusOr<RowPtr<Image>> FindImageFor(const Caller& caller, const Group& group,
                                             const std::string& ref) const;
  absl::StatusOr<RowPtr<Worker>> FindWorkerFor(const Caller& caller, const Group& group,
                                               const std::string& ref) const;
  RowPtr<Group> ChangeMember(Turn& turn, const RowPtr<Group>& found,
                             std::set<std::string> Group::*members, const std::string& id, bool in);

  // group_plan.cc
  PlanRow PlanPair(const Image& image, const Worker& worker,
                   const std::vector<const Group*>& after) const;
  void PlanRoom(const Turn& turn, GroupPlan& plan) const;

  // fanout_flow.cc
  void ReconcileImage(Turn& turn, const std::string& image_id);
  void ReconcilePair(Turn& turn, const Image& image, const std::vector<const Group*>& groups,
                     const std::string& worker_id);
  void ElectResolver(Turn& turn, const Image& image);
  void WantEntry(Turn& turn, const Image& image, const std::string& worker_id, bool by_group);
  void SkipEntry(Turn& turn, const Image& image, const Worker& worker, SkipReason reason);
  void UnwantEntry(Turn& turn, const CacheEntry& entry);
  bool WaitsForTurn(const CacheEntry& entry) const;
  void DropAssignment(Turn& turn, CacheEntry entry);
  void RetryEntry(Turn& turn, const CacheEntry& entry);
  void PutEntry(Turn& turn, CacheEntry entry);
  RowPtr<Bunker> PutBunker(Turn& turn, Bunker row);
  DesiredRow DesiredOf(const CacheEntry& entry) const;
  DesiredRow DesiredOf(const Bunker& row) const;
  bool EntryInUse(const CacheEntry& entry) const;

  // invariants.cc
  absl::Status CheckEntry(const CacheEntry& entry) const;
  absl::Status CheckCounters(const Image& image) const;
  absl::Status CheckLimits() const;
  absl::Status CheckSnapshots() const;

  // admit_flow.cc
  void Admit(Turn& turn);
  void AdmitEntry(Turn& turn, const CacheEntry& found);
  std::string NoRoomMessage(uint64_t needed_bytes, const RoomVerdict& room) const;
  void RecheckRoom(Turn& turn, const std::string& worker_id);
  void TickOpen(Turn& turn);

  // observe_flow.cc
  void ObserveImage(Turn& turn, const std::string& worker_id, uint64_t version,
                    const ImageObservation& seen);
  void ObserveBunker(Turn& turn, const std::string& worker_id, uint64_t version,
                     const BunkerObservation& seen);
  bool PinImage(Turn& turn, const ImageObservation& seen, CacheEntry& entry);
  void FailEntry(Turn& turn, CacheEntry entry, const std::string& code,
                 const std::string& message, bool retryable);
  void EntryReady(Turn& turn, const CacheEntry& entry);
  void FileDropped(Turn& turn, CacheEntry entry);

  // image_flow.cc
  absl::Status SetPullSecret(const std::string& name, Image& image) const;

  // tag_checks.cc
  void TickTagChecks(Turn& turn);
  void ObserveTag(Turn& turn, CacheEntry& entry, const ImageObservation& seen);

  void ObserveOrphan(Turn& turn, const std::string& worker_id, const BunkerObservation& seen);
  void BunkerFailed(Turn& turn, Bunker row, const BunkerObservation& seen);
  static void TakeFacts(Bunker& row, const BunkerObservation& seen);
  void BunkerGone(Turn& turn, const Bunker& row);

  // bunker_flow.cc
  // Puts what a snapshot says in its place in `spec`.
  absl::StatusOr<RowPtr<Image>> CheckCreate(const Caller& caller, CreateBunkerSpec& spec) const;
  absl::StatusOr<RowPtr<Bunker>> FindBunkerToUse(const Caller& caller,
                                                 const std::string& ref) const;
  RowPtr<Bunker> PlaceBunker(Turn& turn, const Caller& caller, const Image& image,
                             const CreateBunkerSpec& spec, std::string name,
                             const PlacementChoice& where);
  // Of the copy with that number; 0 is the first bunker.
  absl::StatusOr<std::string> BunkerNameFor(const Caller& caller, const Image& image,
                                            const CreateBunkerSpec& spec, uint64_t copy);
  void StopBunker(Turn& turn, Bunker row, const std::string& reason);
  void FailBunker(Turn& turn, Bunker row, const std::string& reason, const std::string& message);

  // lifecycle_flow.cc
  absl::StatusOr<RowPtr<Bunker>> FindLive(const Caller& caller, const std::string& ref,
                                          std::optional<uint32_t> incarnation) const;
  static absl::Status CheckIncarnation(const Bunker& row, std::optional<uint32_t> incarnation);
  RowPtr<Bunker> HaltBunker(Turn& turn, Bunker row, const std::string& reason);
  RowPtr<Bunker> SetPaused(Turn& turn, Bunker row, bool paused, const std::string& reason);
  // Ephemeral ones end, the others keep their disk.
  void EndOrHalt(Turn& turn, const Bunker& row, const std::string& reason);
  void OnIdleTimeout(Turn& turn, const Bunker& row);
  void FailKept(Turn& turn, Bunker row, const std::string& reason, const std::string& message,
                bool halted);
  void BunkerHalted(Turn& turn, Bunker row, const BunkerObservation& seen);
  absl::Status CheckRoomToStart(const Turn& turn, const Bunker& row) const;
  absl::StatusOr<RowPtr<Bunker>> Relaunch(Turn& turn, const RowPtr<Bunker>& found);

  // placement_flow.cc
  PlacementRequest RequestFor(const Image& image, const CreateBunkerSpec& spec) const;
  // The query points to `request`.
  PlacementQuery QueryFor(const Caller& caller, const Image& image,
                          PlacementRequest& request) const;
  PlacementCandidate CandidateOf(const Worker& worker, const Image& image,
                                 const PlacementQuery& query, absl::Time now) const;
  PlacementExplanation ExplainFor(const Caller& caller, const Image& image,
                                  const PlacementQuery& query, absl::Time now,
                                  size_t max_rows = kMaxPlacementRows) const;

  // timers.cc
  void LookAtWorker(Turn& turn, const std::string& id);
  void LookAtBunker(Turn& turn, const std::string& id);
  bool EndLost(Turn& turn, const Bunker& row, const Worker& worker);
  void LookAtStopping(Turn& turn, const Bunker& found, const Worker& worker);
  void LookAtProvisioning(Turn& turn, const Bunker& row, const Worker& worker);
  void TickEntries(Turn& turn);
  bool SweepOldRows(Turn& turn);

  // worker_flow.cc
  void EndRebooted(Turn& turn, const std::string& worker_id);
  void ElectOn(Turn& turn, const std::string& worker_id);
  void SetWorkerStatus(Turn& turn, const Worker& found, WorkerStatus status);
  WorkerView ViewOf(const Caller& caller, RowPtr<Worker> worker) const;

  std::unique_ptr<State> state_;
  std::unique_ptr<Accounts> accounts_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<Bridges> bridges_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<WorkerAdmin> worker_admin_;
  std::unique_ptr<Quotas> quotas_;
  std::unique_ptr<Scans> scans_;
  std::unique_ptr<Snapshots> snapshots_;
};

}  // namespace bunker::controller
