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

      {BUNKER_API "Bunkers.CreateBunker", Need::kKey, "create", true},
      {BUNKER_API "Bunkers.ListBunkers", Need::kRead},
      {BUNKER_API "Bunkers.GetBunker", Need::kRead},
      {BUNKER_API "Bunkers.DeleteBunker", Need::kKey, "create", true},
      {BUNKER_API "Bunkers.Exec", Need::kKey, "execute"},

      {BUNKER_API "ModelArtsImages.RegisterModelArtsImage", Need::kKey, "images:manage", true},
      {BUNKER_API "ModelArtsImages.ListModelArtsImages", Need::kRead},
      {BUNKER_API "ModelArtsImages.GetModelArtsImage", Need::kRead},
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
