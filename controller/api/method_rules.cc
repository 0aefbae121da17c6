// The ONE table of what each RPC asks of its caller, REST and gRPC alike: a block per service.
#include "controller/api/auth.h"

#define BUNKER_API "bunker.v1."

namespace bunker::controller {

const std::vector<MethodRule>& MethodRules() {
  static const auto* const rules = new std::vector<MethodRule>{
      {BUNKER_API "Health.GetHealth", Need::kPublic},
      {BUNKER_API "Health.GetReady", Need::kPublic},

      {BUNKER_API "Accounts.WhoAmI", Need::kSignedIn},

      {BUNKER_API "Images.RegisterImage", Need::kKey, "images:manage", true},
      {BUNKER_API "Images.ListImages", Need::kRead},
      {BUNKER_API "Images.GetImage", Need::kRead},
      {BUNKER_API "Images.GetImageCache", Need::kRead},
      {BUNKER_API "Images.WarmImage", Need::kKey, "images:manage", true},
      {BUNKER_API "Images.DeactivateImage", Need::kKey, "images:manage", true},

      {BUNKER_API "AvailabilityGroups.CreateAvailabilityGroup", Need::kKey, "admin:tenant", true},
      {BUNKER_API "AvailabilityGroups.ListAvailabilityGroups", Need::kRead},
      {BUNKER_API "AvailabilityGroups.GetAvailabilityGroup", Need::kRead},
      {BUNKER_API "AvailabilityGroups.DeleteAvailabilityGroup", Need::kKey, "admin:tenant", true},
      {BUNKER_API "AvailabilityGroups.AttachImage", Need::kKey, "admin:tenant", true},
      {BUNKER_API "AvailabilityGroups.DetachImage", Need::kKey, "admin:tenant", true},
      {BUNKER_API "AvailabilityGroups.AttachWorker", Need::kKey, "admin:tenant", true},
      {BUNKER_API "AvailabilityGroups.DetachWorker", Need::kKey, "admin:tenant", true},

      {BUNKER_API "Workers.ListWorkers", Need::kRead},
      {BUNKER_API "Workers.GetWorker", Need::kRead},
      // What a partner's or the platform's workers take beyond these: CheckMayChange().
      {BUNKER_API "Workers.UpdateWorker", Need::kKey, "admin:tenant", true},
      {BUNKER_API "Workers.RemoveWorker", Need::kKey, "admin:tenant", true},
      {BUNKER_API "Workers.DrainWorker", Need::kKey, "admin", true},
      {BUNKER_API "Workers.ResumeWorker", Need::kKey, "admin", true},
      {BUNKER_API "WorkerTokens.CreateWorkerToken", Need::kKey, "admin:tenant", true},
      {BUNKER_API "WorkerTokens.ListWorkerTokens", Need::kKey, "admin:tenant"},
      {BUNKER_API "WorkerTokens.GetWorkerToken", Need::kKey, "admin:tenant"},
      {BUNKER_API "WorkerTokens.DeleteWorkerToken", Need::kKey, "admin:tenant", true},

      {BUNKER_API "Bunkers.CreateBunker", Need::kKey, "create", true},
      {BUNKER_API "Bunkers.ListBunkers", Need::kRead},
      {BUNKER_API "Bunkers.GetBunker", Need::kRead},
      {BUNKER_API "Bunkers.DeleteBunker", Need::kKey, "create", true},
      {BUNKER_API "Bunkers.Exec", Need::kKey, "execute"},

      {BUNKER_API "QuotaProfiles.CreateQuotaProfile", Need::kKey, "admin:tenant", true},
      {BUNKER_API "QuotaProfiles.ListQuotaProfiles", Need::kKey, "admin:tenant"},
      {BUNKER_API "QuotaProfiles.GetQuotaProfile", Need::kKey, "admin:tenant"},
      {BUNKER_API "QuotaProfiles.UpdateQuotaProfile", Need::kKey, "admin:tenant", true},
      {BUNKER_API "QuotaProfiles.DeleteQuotaProfile", Need::kKey, "admin:tenant", true},
      {BUNKER_API "QuotaProfiles.GetQuotaUsage", Need::kRead},
      {BUNKER_API "QuotaAssignments.CreateQuotaAssignment", Need::kKey, "admin:tenant", true},
      {BUNKER_API "QuotaAssignments.ListQuotaAssignments", Need::kKey, "admin:tenant"},
      {BUNKER_API "QuotaAssignments.GetQuotaAssignment", Need::kKey, "admin:tenant"},
      {BUNKER_API "QuotaAssignments.DeleteQuotaAssignment", Need::kKey, "admin:tenant", true},

      {BUNKER_API "Placement.ExplainPlacement", Need::kKey, "create"},
  };
  return *rules;
}

const MethodRule* FindRule(std::string_view method) {
  for (const MethodRule& rule : MethodRules()) {
    if (method == rule.method) return &rule;
  }
  return nullptr;
}

}  // namespace bunker::controller
