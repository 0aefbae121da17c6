// The ONE table of what each RPC asks of its caller, REST and gRPC alike: a block per service.
#include <iterator>

#include "controller/api/auth.h"

#define BUNKER_API "bunker.v1."

namespace bunker::controller {

namespace {

constexpr MethodRule kRules[] = {
    {BUNKER_API "Health.GetHealth", Need::kPublic},
    {BUNKER_API "Health.GetReady", Need::kPublic},

    {BUNKER_API "Accounts.WhoAmI", Need::kSignedIn},

    {BUNKER_API "Partners.CreatePartner", Need::kSuperAdmin, "", true},
    {BUNKER_API "Partners.ListPartners", Need::kSuperAdmin},
    {BUNKER_API "Partners.GetPartner", Need::kSuperAdmin},
    {BUNKER_API "Partners.UpdatePartner", Need::kSuperAdmin, "", true},
    {BUNKER_API "Partners.DeletePartner", Need::kSuperAdmin, "", true},

    {BUNKER_API "Tenants.CreateTenant", Need::kPartnerAdmin, "admin:tenant", true},
    {BUNKER_API "Tenants.ListTenants", Need::kKey, "admin:tenant"},
    {BUNKER_API "Tenants.GetTenant", Need::kKey, "admin:tenant"},
    {BUNKER_API "Tenants.UpdateTenant", Need::kPartnerAdmin, "admin:tenant", true},
    {BUNKER_API "Tenants.DeleteTenant", Need::kPartnerAdmin, "admin:tenant", true},

    {BUNKER_API "Users.CreateUser", Need::kKey, "admin:tenant", true},
    {BUNKER_API "Users.ListUsers", Need::kKey, "admin:tenant"},
    {BUNKER_API "Users.GetUser", Need::kKey, "admin:tenant"},
    {BUNKER_API "Users.UpdateUser", Need::kKey, "admin:tenant", true},
    {BUNKER_API "Users.DeleteUser", Need::kKey, "admin:tenant", true},
    {BUNKER_API "Users.SetModulePermissions", Need::kKey, "admin:tenant", true},

    {BUNKER_API "UserGroups.CreateUserGroup", Need::kKey, "admin:tenant", true},
    {BUNKER_API "UserGroups.ListUserGroups", Need::kKey, "admin:tenant"},
    {BUNKER_API "UserGroups.GetUserGroup", Need::kKey, "admin:tenant"},
    {BUNKER_API "UserGroups.UpdateUserGroup", Need::kKey, "admin:tenant", true},
    {BUNKER_API "UserGroups.DeleteUserGroup", Need::kKey, "admin:tenant", true},
    {BUNKER_API "UserGroups.AddMember", Need::kKey, "admin:tenant", true},
    {BUNKER_API "UserGroups.RemoveMember", Need::kKey, "admin:tenant", true},

    {BUNKER_API "ApiKeys.CreateApiKey", Need::kKey, "admin:tenant", true, "", Extra::kSecretAnswer},
    {BUNKER_API "ApiKeys.ListApiKeys", Need::kKey, "admin:tenant"},
    {BUNKER_API "ApiKeys.GetApiKey", Need::kKey, "admin:tenant"},
    {BUNKER_API "ApiKeys.RevokeApiKey", Need::kKey, "admin:tenant", true},

    {BUNKER_API "Audit.ListAudit", Need::kEitherKey, "admin:tenant", false, "admin:platform"},
    {BUNKER_API "Audit.GetAuditHead", Need::kEitherKey, "admin:tenant", false, "admin:platform"},

    {BUNKER_API "Images.RegisterImage", Need::kKey, "images:manage", true, "admin:platform"},
    {BUNKER_API "Images.ListImages", Need::kRead},
    {BUNKER_API "Images.GetImage", Need::kRead},
    {BUNKER_API "Images.GetImageCache", Need::kRead},
    {BUNKER_API "Images.WatchImageCache", Need::kRead},
    {BUNKER_API "Images.WarmImage", Need::kKey, "images:manage", true, "admin:platform"},
    {BUNKER_API "Images.DeactivateImage", Need::kKey, "images:manage", true, "admin:platform"},

    {BUNKER_API "Images.UpdateImage", Need::kKey, "images:manage", true, "admin:platform"},

    {BUNKER_API "Scans.ScanImage", Need::kKey, "images:manage", true, "admin:platform"},
    {BUNKER_API "Scans.GetImageSbom", Need::kRead},
    {BUNKER_API "Scans.ListImageVulnerabilities", Need::kRead},
    {BUNKER_API "Scans.ListPackages", Need::kRead},

    {BUNKER_API "RegistryCredentials.CreateRegistryCredential", Need::kKey, "images:manage", true,
     "admin:platform"},
    {BUNKER_API "RegistryCredentials.ListRegistryCredentials", Need::kKey, "images:manage"},
    {BUNKER_API "RegistryCredentials.GetRegistryCredential", Need::kKey, "images:manage"},
    {BUNKER_API "RegistryCredentials.ReplaceRegistryCredential", Need::kKey, "images:manage", true,
     "admin:platform"},
    {BUNKER_API "RegistryCredentials.DeleteRegistryCredential", Need::kKey, "images:manage", true,
     "admin:platform"},

    {BUNKER_API "AvailabilityGroups.CreateAvailabilityGroup", Need::kScopedKey, "admin:tenant",
     true, "admin:platform"},
    {BUNKER_API "AvailabilityGroups.ListAvailabilityGroups", Need::kRead},
    {BUNKER_API "AvailabilityGroups.GetAvailabilityGroup", Need::kRead},
    {BUNKER_API "AvailabilityGroups.PatchAvailabilityGroup", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "AvailabilityGroups.PlanAvailabilityGroup", Need::kKey, "admin:tenant"},
    {BUNKER_API "AvailabilityGroups.DeleteAvailabilityGroup", Need::kScopedKey, "admin:tenant",
     true, "admin:platform"},
    {BUNKER_API "AvailabilityGroups.AttachImage", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "AvailabilityGroups.DetachImage", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "AvailabilityGroups.AttachWorker", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "AvailabilityGroups.DetachWorker", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},

    {BUNKER_API "Workers.ListWorkers", Need::kRead},
    {BUNKER_API "Workers.GetWorker", Need::kRead},
    {BUNKER_API "Workers.UpdateWorker", Need::kScopedKey, "admin:tenant", true, "admin:platform"},
    {BUNKER_API "Workers.CollectWorker", Need::kScopedKey, "admin:tenant", true, "admin:platform"},
    {BUNKER_API "Workers.RemoveWorker", Need::kScopedKey, "admin:tenant", true, "admin:platform"},
    {BUNKER_API "Workers.DrainWorker", Need::kKey, "admin", true, "admin:platform"},
    {BUNKER_API "Workers.ResumeWorker", Need::kKey, "admin", true, "admin:platform"},
    {BUNKER_API "WorkerTokens.CreateWorkerToken", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "WorkerTokens.ListWorkerTokens", Need::kEitherKey, "admin:tenant", false,
     "admin:platform"},
    {BUNKER_API "WorkerTokens.GetWorkerToken", Need::kEitherKey, "admin:tenant", false,
     "admin:platform"},
    {BUNKER_API "WorkerTokens.DeleteWorkerToken", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},

    {BUNKER_API "Bridges.CreateBridge", Need::kKey, "admin", true, "admin:platform"},
    {BUNKER_API "Bridges.ListBridges", Need::kKey, "admin"},
    {BUNKER_API "Bridges.GetBridge", Need::kKey, "admin"},
    {BUNKER_API "Bridges.DeleteBridge", Need::kKey, "admin", true, "admin:platform"},

    {BUNKER_API "Bunkers.CreateBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.ListBunkers", Need::kRead},
    {BUNKER_API "Bunkers.GetBunker", Need::kRead},
    {BUNKER_API "Bunkers.ListNetworkEvents", Need::kRead},
    {BUNKER_API "Bunkers.DeleteBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.ListBunkerEvents", Need::kRead},
    {BUNKER_API "Bunkers.GetBunkerEvents", Need::kRead},
    {BUNKER_API "Bunkers.WatchBunkers", Need::kRead},
    {BUNKER_API "Bunkers.UpdateBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.StopBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.StartBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.RestartBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.PauseBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.ResumeBunker", Need::kKey, "create", true},
    {BUNKER_API "Bunkers.Exec", Need::kKey, "execute", false, "", Extra::kStart},
    {BUNKER_API "Bunkers.ExecStream", Need::kKey, "execute", false, "", Extra::kStart},

    {BUNKER_API "Snapshots.CreateSnapshot", Need::kKey, "create", true},
    {BUNKER_API "Snapshots.ListSnapshots", Need::kRead},
    {BUNKER_API "Snapshots.GetSnapshot", Need::kRead},
    {BUNKER_API "Snapshots.DeleteSnapshot", Need::kKey, "create", true},

    {BUNKER_API "Processes.CreateProcess", Need::kKey, "execute", false, "", Extra::kStart},
    {BUNKER_API "Processes.ListProcesses", Need::kKey, "execute"},
    {BUNKER_API "Processes.GetProcess", Need::kKey, "execute"},
    {BUNKER_API "Processes.ReadProcessOutput", Need::kKey, "execute"},
    {BUNKER_API "Processes.WriteProcessStdin", Need::kKey, "execute"},
    {BUNKER_API "Processes.CloseProcessStdin", Need::kKey, "execute"},
    {BUNKER_API "Processes.SignalProcess", Need::kKey, "execute"},

    {BUNKER_API "Logs.GetBunkerLogs", Need::kRead},
    {BUNKER_API "Logs.ReadBunkerLogs", Need::kRead},

    {BUNKER_API "Shells.OpenShell", Need::kKey, "shell", false, "", Extra::kStart},
    {BUNKER_API "Shells.CreateShellTicket", Need::kKey, "shell"},
    {BUNKER_API "Files.WriteFile", Need::kKey, "files", false, "", Extra::kStart},
    {BUNKER_API "Files.ReadFile", Need::kKey, "files"},
    {BUNKER_API "Files.WatchFiles", Need::kKey, "files"},
    {BUNKER_API "Files.DeleteFile", Need::kKey, "files", false, "", Extra::kStart},
    {BUNKER_API "Files.MakeFolder", Need::kKey, "files", false, "", Extra::kStart},
    {BUNKER_API "Files.MoveFile", Need::kKey, "files", false, "", Extra::kStart},

    {BUNKER_API "QuotaProfiles.CreateQuotaProfile", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "QuotaProfiles.ListQuotaProfiles", Need::kEitherKey, "admin:tenant", false,
     "admin:platform"},
    {BUNKER_API "QuotaProfiles.GetQuotaProfile", Need::kEitherKey, "admin:tenant", false,
     "admin:platform"},
    {BUNKER_API "QuotaProfiles.UpdateQuotaProfile", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "QuotaProfiles.DeleteQuotaProfile", Need::kScopedKey, "admin:tenant", true,
     "admin:platform"},
    {BUNKER_API "QuotaProfiles.GetQuotaUsage", Need::kRead},
    {BUNKER_API "QuotaAssignments.CreateQuotaAssignment", Need::kKey, "admin:tenant", true},
    {BUNKER_API "QuotaAssignments.ListQuotaAssignments", Need::kKey, "admin:tenant"},
    {BUNKER_API "QuotaAssignments.GetQuotaAssignment", Need::kKey, "admin:tenant"},
    {BUNKER_API "QuotaAssignments.DeleteQuotaAssignment", Need::kKey, "admin:tenant", true},

    {BUNKER_API "Placement.ExplainPlacement", Need::kKey, "create"},

    {BUNKER_API "ModelArtsImages.RegisterModelArtsImage", Need::kKey, "images:manage", true},
    {BUNKER_API "ModelArtsImages.ListModelArtsImages", Need::kRead},
    {BUNKER_API "ModelArtsImages.GetModelArtsImage", Need::kRead},
};

}  // namespace

const std::vector<MethodRule>& MethodRules() {
  static const auto* const rules =
      new std::vector<MethodRule>(std::begin(kRules), std::end(kRules));
  return *rules;
}

const std::vector<ValueRule>& ValueRules() {
  constexpr const char* kCreate = BUNKER_API "Bunkers.CreateBunker";
  constexpr const char* kMode = "bunker.lifecycle_mode";
  constexpr const char* kProfile = "bunker.network_profile";
  constexpr const char* kModeDenied = "LIFECYCLE_MODE_DENIED";
  constexpr const char* kProfileDenied = "NETWORK_PROFILE_DENIED";
  static const auto* const rules = new std::vector<ValueRule>{
      {kCreate, kMode, "session", "create:session", kModeDenied},
      {kCreate, kMode, "persistent", "create:persistent", kModeDenied},
      {kCreate, kProfile, "registry", "network:registry", kProfileDenied},
      {kCreate, kProfile, "allowlisted", "network:allowlisted", kProfileDenied},
      {kCreate, kProfile, "unrestricted", "network:unrestricted", kProfileDenied},
      {kCreate, kProfile, "transit", "network:transit", kProfileDenied},
      {kCreate, "bunker.interfaces.spoof_guard", "false", "l2_transparency",
       "AUTHZ_PERMISSION_DENIED", true},
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
