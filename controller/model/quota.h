// Quotas: profiles of caps, to whom they are assigned, and what bunkers count for. Rows, no rules.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "controller/model/bunker.h"
#include "controller/model/enum_names.h"
#include "controller/model/scope.h"

namespace bunker::controller {

// What counts, of one bunker or summed up. Memory is the guest's own: placement alone adds what a
// VM takes beside it.
struct QuotaUsage {
  uint64_t bunkers = 0;
  uint64_t persistent = 0;
  uint64_t cpu_millicores = 0;
  uint64_t memory_mb = 0;
  uint64_t disk_mb = 0;
  uint64_t gpus = 0;
  bool operator==(const QuotaUsage&) const = default;
  QuotaUsage& operator+=(const QuotaUsage& other);
  // REQUIRES: no component of `other` is larger.
  QuotaUsage& operator-=(const QuotaUsage& other);
  QuotaUsage Times(uint64_t count) const;
};

// What the bunker counts for now: nothing once it is final, its disk while it is stopped.
QuotaUsage CountOf(const Bunker& bunker);

// Nothing = no cap.
struct QuotaCaps {
  std::optional<uint64_t> max_concurrent_bunkers;
  std::optional<uint64_t> max_persistent_bunkers;
  std::optional<uint64_t> max_cpu_millicores;
  std::optional<uint64_t> max_memory_mb;
  std::optional<uint64_t> max_disk_mb;
  std::optional<uint64_t> max_gpu_count;
  std::optional<uint64_t> per_bunker_max_cpu;     // millicores
  std::optional<uint64_t> per_bunker_max_memory;  // MiB
  std::optional<uint64_t> per_bunker_max_disk;    // MiB
  std::optional<uint64_t> per_bunker_max_gpu;
  bool operator==(const QuotaCaps&) const = default;
};

struct QuotaProfile {
  std::string id;  // qp_…
  std::string name;
  std::string description;
  Ownership ownership;
  QuotaCaps caps;
  absl::Time created_at;
  absl::Time updated_at;
};

// The platform's profile of this name holds for users whom no assignment reaches.
inline constexpr char kDefaultQuotaProfile[] = "default";

enum class QuotaTarget { kUser, kGroup };
inline constexpr EnumName<QuotaTarget> kQuotaTargetNames[] = {{QuotaTarget::kUser, "user"},
                                                              {QuotaTarget::kGroup, "group"}};
inline std::span<const EnumName<QuotaTarget>> EnumNames(QuotaTarget) {
  return kQuotaTargetNames;
}

// individual: the target's own sum. shared: one bucket for the group and those nested in it.
// per_user: a bucket for each member of these.
enum class QuotaMode { kIndividual, kShared, kPerUser };
inline constexpr EnumName<QuotaMode> kQuotaModeNames[] = {{QuotaMode::kIndividual, "individual"},
                                                          {QuotaMode::kShared, "shared"},
                                                          {QuotaMode::kPerUser, "per_user"}};
inline std::span<const EnumName<QuotaMode>> EnumNames(QuotaMode) {
  return kQuotaModeNames;
}

struct QuotaAssignment {
  std::string id;  // qa_…
  std::string profile_id;
  QuotaTarget target_kind = QuotaTarget::kUser;
  std::string target_id;
  QuotaMode mode = QuotaMode::kIndividual;
  std::string tenant_id;  // the target's
  Ownership ownership;    // who may take it away: whoever made it, and those above
  absl::Time created_at;
};

}  // namespace bunker::controller
