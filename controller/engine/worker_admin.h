// What operators and tenants' admins do to workers: tokens to join with, labels, drain, resume and
// removal. Which permission each needs is the API's; who owns what is decided here.
//
// Not thread-safe: belongs to the engine, whose rules for callers hold here too.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "controller/engine/engine.h"
#include "controller/engine/specs.h"
#include "controller/engine/turn.h"

namespace bunker::controller {

struct DrainSpec {
  std::optional<absl::Duration> deadline;  // nothing: none
  DrainThen then = DrainThen::kWait;
};

class WorkerAdmin {
 public:
  // `engine` owns it.
  explicit WorkerAdmin(Engine& engine) : engine_(engine) {}
  WorkerAdmin(const WorkerAdmin&) = delete;
  WorkerAdmin& operator=(const WorkerAdmin&) = delete;

  // The owner of a worker that `caller` is to make a token for. `tenant_id` and `partner_id` name
  // another one than the caller's own, "" = its own: a super_admin may name any, a partner_admin
  // its partner's tenants; others are NOT_FOUND.
  absl::StatusOr<Ownership> OwnerFor(const Caller& caller, Scope scope,
                                     const std::string& tenant_id,
                                     const std::string& partner_id) const;

  // Tokens of owners that the caller may change, spent and expired ones included until the sweep.
  absl::StatusOr<RowPtr<JoinToken>> FindToken(const Caller& caller, const std::string& id) const;
  Page<JoinToken> ListTokens(const Caller& caller, const PageSpec& page) const;
  // Worth nothing from now on. The row as it was.
  absl::StatusOr<RowPtr<JoinToken>> DeleteToken(Turn& turn, const Caller& caller,
                                                const std::string& id);

  // All of these take an id or a name. AUTHZ_PERMISSION_DENIED for a worker that the caller sees
  // but does not own.

  // In place of those given before. They win over the labels that the agent reports.
  absl::StatusOr<WorkerView> SetLabels(Turn& turn, const Caller& caller, const std::string& ref,
                                       std::map<std::string, std::string> labels);
  // No new bunkers. At the deadline those that are left are stopped, or waited for. Again: with the
  // new deadline.
  absl::StatusOr<WorkerView> Drain(Turn& turn, const Caller& caller, const std::string& ref,
                                   const DrainSpec& spec);
  absl::StatusOr<WorkerView> Resume(Turn& turn, const Caller& caller, const std::string& ref);
  // Takes its credential, its cache rows and its place in groups; its stream ends. With bunkers on
  // it RESOURCE_IN_USE, but by `force`: they fail with WORKER_REMOVED. The worker as it was.
  absl::StatusOr<WorkerView> Remove(Turn& turn, const Caller& caller, const std::string& ref,
                                    bool force);

  // Drains whose deadline has come.
  void Tick(Turn& turn);

 private:
  absl::StatusOr<WorkerView> FindOwn(const Caller& caller, const std::string& ref) const;
  void EndBunkers(Turn& turn, const std::string& worker_id);
  void DropFromGroups(Turn& turn, const std::string& worker_id);
  void DropCache(Turn& turn, const std::string& worker_id);

  Engine& engine_;
};

}  // namespace bunker::controller
