// Quotas: their profiles and assignments, what is in use, and whether a create fits.
//
// Not thread-safe: belongs to the engine, whose rules for callers hold here too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/engine/engine.h"
#include "controller/engine/specs.h"
#include "controller/engine/turn.h"
#include "controller/model/quota.h"
#include "controller/policy/quota.h"

namespace bunker::controller {

struct QuotaProfileSpec {
  std::string name;
  std::string description;
  Scope scope = Scope::kTenant;
  QuotaCaps caps;
};

struct QuotaProfileUpdate {
  std::optional<std::string> name;
  std::optional<std::string> description;
  QuotaCaps caps;  // all of them, as they are to be
};

struct QuotaAssignmentSpec {
  std::string profile;  // id or name
  QuotaTarget target_kind = QuotaTarget::kUser;
  std::string target_id;
  QuotaMode mode = QuotaMode::kIndividual;
};

// A profile that applies to a user, and how full its bucket is.
struct QuotaRow {
  RowPtr<QuotaProfile> profile;
  RowPtr<QuotaAssignment> assignment;  // null: the platform's default
  QuotaTarget bucket_kind = QuotaTarget::kUser;
  std::string bucket_id;
  bool is_nested = false;  // groups nested in the bucket's count too
  QuotaUsage usage;
};

class Quotas {
 public:
  // `engine` owns it.
  explicit Quotas(Engine& engine) : engine_(engine) {}
  Quotas(const Quotas&) = delete;
  Quotas& operator=(const Quotas&) = delete;

  // SLUG_CONFLICT for a name taken by the same owner; AUTHZ_PERMISSION_DENIED for a scope above the
  // caller's role.
  absl::StatusOr<RowPtr<QuotaProfile>> CreateProfile(Turn& turn, const Caller& caller,
                                                     const QuotaProfileSpec& spec);
  // By id, or by name: the caller's tenant, then its partner, then the platform.
  absl::StatusOr<RowPtr<QuotaProfile>> FindProfile(const Caller& caller,
                                                   const std::string& ref) const;
  Page<QuotaProfile> ListProfiles(const Caller& caller, const PageSpec& page) const;
  // A lower cap stops nothing: it holds for creates from now on.
  // SLUG_CONFLICT for a name that another profile of the owner has.
  absl::StatusOr<RowPtr<QuotaProfile>> UpdateProfile(Turn& turn, const Caller& caller,
                                                     const std::string& ref,
                                                     const QuotaProfileUpdate& update);
  // RESOURCE_IN_USE while it is assigned. The row as it was.
  absl::StatusOr<RowPtr<QuotaProfile>> DeleteProfile(Turn& turn, const Caller& caller,
                                                     const std::string& ref);

  // RESOURCE_IN_USE where the target has one already.
  absl::StatusOr<RowPtr<QuotaAssignment>> Assign(Turn& turn, const Caller& caller,
                                                 const QuotaAssignmentSpec& spec);
  absl::StatusOr<RowPtr<QuotaAssignment>> FindAssignment(const Caller& caller,
                                                         const std::string& id) const;
  Page<QuotaAssignment> ListAssignments(const Caller& caller, const PageSpec& page) const;
  absl::StatusOr<RowPtr<QuotaAssignment>> Unassign(Turn& turn, const Caller& caller,
                                                   const std::string& id);

  // The id of a user of a tenant that the caller administers.
  absl::StatusOr<std::string> FindUser(const Caller& caller, const std::string& id) const;
  // The profiles that apply to the user: O(these), whatever there are bunkers.
  std::vector<QuotaRow> Applying(const std::string& user_id) const;
  // BUNKER_QUOTA_EXCEEDED naming profile, cap and usage where `count` such bunkers are too much.
  absl::Status Check(const std::string& user_id, const QuotaUsage& each, uint64_t count) const;

 private:
  absl::Status CheckNameFree(const Ownership& owner, const std::string& name) const;
  absl::StatusOr<RowPtr<QuotaProfile>> FindOwnProfile(const Caller& caller,
                                                      const std::string& ref) const;
  bool MaySeeAssignment(const Caller& caller, const QuotaAssignment& row) const;
  // The tenant of a user or group that the caller administers.
  absl::StatusOr<std::string> TenantOfTarget(const Caller& caller,
                                             const QuotaAssignmentSpec& spec) const;
  void AddRow(const std::string& user_id, QuotaTarget kind, const std::string& target,
              bool is_direct, std::vector<QuotaRow>& rows) const;

  Engine& engine_;
};

}  // namespace bunker::controller
