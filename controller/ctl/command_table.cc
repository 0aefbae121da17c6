#include "controller/ctl/command_table.h"

namespace bunker::ctl {
namespace {

using C = Cell;
using K = Kind;

const Flag kName = {"--name", "name", K::kText, "its new name"};
const Flag kDescription = {"--description", "description", K::kText, "for people"};
const Flag kScope = {"--scope", "scope", K::kText, "tenant, partner or platform"};

const std::vector<Flag> kProfileFlags = {
    kDescription,
    kScope,
    {"--max-bunkers", "max_concurrent_bunkers", K::kNumber, "at once"},
    {"--max-persistent", "max_persistent_bunkers", K::kNumber, "persistent ones"},
    {"--max-cpu-millicores", "max_cpu_millicores", K::kNumber, "together"},
    {"--max-memory-mb", "max_memory_mb", K::kNumber, "together"},
    {"--max-disk-mb", "max_disk_mb", K::kNumber, "together"},
    {"--max-gpus", "max_gpu_count", K::kNumber, "together"},
    {"--bunker-cpu", "per_bunker_max_cpu", K::kNumber, "of one, in millicores"},
    {"--bunker-memory", "per_bunker_max_memory", K::kNumber, "of one, in MB"},
    {"--bunker-disk", "per_bunker_max_disk", K::kNumber, "of one, in MB"},
    {"--bunker-gpus", "per_bunker_max_gpu", K::kNumber, "of one"}};

// A row a command; the formatter would give every value a line.
// clang-format off

void AddTenancy(std::vector<CommandRow>* rows) {
  const std::vector<Column> named = {{"NAME", "name"}, {"CREATED", "created_at", C::kAge},
                                     {"ID", "id"}};
  rows->push_back({"partner", "create", "A new partner", "POST", "/v1/partners", {"name"}, {}});
  rows->push_back({"partner", "list", "All partners", "GET", "/v1/partners", {}, {}, Show::kTable,
                   named});
  rows->push_back({"partner", "show", "One partner", "GET", "/v1/partners/{partner}", {"partner"},
                   {}});
  rows->push_back({"partner", "update", "Rename a partner", "PATCH", "/v1/partners/{partner}",
                   {"partner"}, {kName}});
  rows->push_back({"partner", "delete", "Delete a partner without tenants", "DELETE",
                   "/v1/partners/{partner}", {"partner"}, {}});

  const Flag status = {"--status", "status", K::kText, "active or suspended"};
  rows->push_back({"tenant", "create", "A new tenant", "POST", "/v1/tenants", {"name"},
                   {{"--partner", "partner_id", K::kText, "its partner's id"}, status}});
  rows->push_back({"tenant", "list", "All tenants that you may see", "GET", "/v1/tenants", {}, {},
                   Show::kTable,
                   {{"NAME", "name"}, {"STATUS", "status"}, {"PARTNER", "partner_id"},
                    {"CREATED", "created_at", C::kAge}, {"ID", "id"}}});
  rows->push_back({"tenant", "show", "One tenant", "GET", "/v1/tenants/{tenant}", {"tenant"}, {}});
  rows->push_back({"tenant", "update", "Rename, suspend or resume a tenant", "PATCH",
                   "/v1/tenants/{tenant}", {"tenant"}, {kName, status}});
  rows->push_back({"tenant", "delete", "Delete a tenant without rows", "DELETE",
                   "/v1/tenants/{tenant}", {"tenant"}, {}});
}

void AddUsers(std::vector<CommandRow>* rows) {
  const Flag role = {"--role", "role", K::kText,
                     "tenant_viewer, tenant_user, tenant_admin, partner_admin or super_admin"};
  const Flag user_status = {"--status", "status", K::kText, "active or disabled"};
  const Flag permissions = {"--permission", "permissions", K::kList, "scaibunker:… (repeatable)"};
  rows->push_back({"user", "create", "A new user", "POST", "/v1/users", {"name"},
                   {role, {"--tenant", "tenant_id", K::kText, "another tenant's id"}}});
  rows->push_back({"user", "list", "All users that you may see", "GET", "/v1/users", {}, {},
                   Show::kTable,
                   {{"NAME", "name"}, {"ROLE", "role"}, {"STATUS", "status"},
                    {"PERMISSIONS", "permissions"}, {"TENANT", "tenant_id"}, {"ID", "id"}}});
  rows->push_back({"user", "show", "One user", "GET", "/v1/users/{user}", {"user"}, {}});
  rows->push_back({"user", "update", "Change a user", "PATCH", "/v1/users/{user}", {"user"},
                   {kName, role, user_status}});
  rows->push_back({"user", "delete", "Delete a user", "DELETE", "/v1/users/{user}", {"user"}, {}});
  rows->push_back({"user", "permissions", "Set the permissions beyond the role's", "PUT",
                   "/v1/users/{user}/module-permissions", {"user"}, {permissions}});

  const Flag parent = {"--parent", "parent_id", K::kText, "the group that it is part of"};
  rows->push_back({"user-group", "create", "A new group of users", "POST", "/v1/groups", {"name"},
                   {parent, permissions}});
  rows->push_back({"user-group", "list", "All groups of users", "GET", "/v1/groups", {}, {},
                   Show::kTable,
                   {{"NAME", "name"}, {"PARENT", "parent_id"}, {"PERMISSIONS", "permissions"},
                    {"MEMBERS", "member_count"}, {"ID", "id"}}});
  rows->push_back({"user-group", "show", "One group of users", "GET", "/v1/groups/{group}",
                   {"group"}, {}});
  rows->push_back({"user-group", "update", "Change a group of users", "PATCH",
                   "/v1/groups/{group}", {"group"}, {kName, parent, permissions}});
  rows->push_back({"user-group", "delete", "Delete a group of users", "DELETE",
                   "/v1/groups/{group}", {"group"}, {}});
  rows->push_back({"user-group", "add", "Put a user into a group", "PUT",
                   "/v1/groups/{group}/members/{user}", {"group", "user"}, {}});
  rows->push_back({"user-group", "remove", "Take a user out of a group", "DELETE",
                   "/v1/groups/{group}/members/{user}", {"group", "user"}, {}});

  rows->push_back({"key", "create", "A new key; it is shown this once", "POST", "/v1/api-keys",
                   {"name"},
                   {{"--user", "user_id", K::kText, "another user's id"}, permissions,
                    {"--expires-at", "expires_at", K::kText, "such as 2030-01-31T12:00:00Z"},
                    {"--rate-limit", "rate_limit_per_s", K::kNumber, "requests a second"}}});
  rows->push_back({"key", "list", "All keys that you may see", "GET", "/v1/api-keys", {}, {},
                   Show::kTable,
                   {{"NAME", "name"}, {"USER", "user_id"}, {"EXPIRES", "expires_at"},
                    {"REVOKED", "revoked_at"}, {"CREATED", "created_at", C::kAge}, {"ID", "id"}}});
  rows->push_back({"key", "show", "One key", "GET", "/v1/api-keys/{key}", {"key"}, {}});
  rows->push_back({"key", "revoke", "End a key at once, its streams too", "DELETE",
                   "/v1/api-keys/{key}", {"key"}, {}});
  rows->push_back({"whoami", "", "Who this key is, and what it may do", "GET", "/v1/whoami", {},
                   {}});
}

void AddImages(std::vector<CommandRow>* rows) {
  rows->push_back({"image", "update", "Change what may change of an image", "PATCH",
                   "/images/{image}", {"image"},
                   {{"--display-name", "display_name", K::kText, "for people"}, kDescription,
                    {"--cpu-millicores", "default_cpu_millicores", K::kNumber, "of its bunkers"},
                    {"--memory-mb", "default_memory_mb", K::kNumber, "of its bunkers"},
                    {"--disk-mb", "default_disk_mb", K::kNumber, "of its bunkers"},
                    {"--lazy-pull", "lazy_pull", K::kBool, "true or false"},
                    {"--preinstalled", "preinstalled", K::kList, "a,b,c"},
                    {"--pull-secret", "pull_secret", K::kText, "a credential's name"}}});
  rows->push_back({"image", "scan", "Scan it again now", "POST", "/images/{image}/scan",
                   {"image"}, {}});
  rows->push_back({"image", "sbom", "What is in it: a CycloneDX document", "GET",
                   "/images/{image}/sbom", {"image"}, {}, Show::kRawJson});
  rows->push_back({"image", "vulnerabilities", "What the scan found", "GET",
                   "/images/{image}/vulnerabilities", {"image"},
                   {{"--severity", "severity", K::kText, "critical, high, medium, low, unknown"}},
                   Show::kTable,
                   {{"ID", "id"}, {"SEVERITY", "severity"}, {"PACKAGE", "package"},
                    {"VERSION", "version"}, {"FIXED IN", "fixed_version"},
                    {"ECOSYSTEM", "ecosystem"}}});
  rows->push_back({"package", "list", "Images that hold a package", "GET", "/packages", {},
                   {{"--name", "name", K::kText, "the package"},
                    {"--below", "below", K::kText, "only versions below this one"},
                    {"--ecosystem", "ecosystem", K::kText, "Debian, Alpine, PyPI, npm, …"}},
                   Show::kTable,
                   {{"IMAGE", "image_name"}, {"PACKAGE", "name"}, {"VERSION", "version"},
                    {"ECOSYSTEM", "ecosystem"}, {"IMAGE ID", "image_id"}}});

  const std::vector<Flag> secret = {
      {"--host", "host", K::kText, "the registry"},
      {"--username", "username", K::kText, "with --password-file"},
      {"--password-file", "password", K::kText, "a file that holds it; - reads standard input"},
      {"--json-key-file", "json_key", K::kText, "a file with a one-line key; - reads stdin"},
      kScope};
  rows->push_back({"credential", "create", "A registry's credential: write-only", "POST",
                   "/registry-credentials", {"name"}, secret});
  rows->push_back({"credential", "list", "All credentials, without their secrets", "GET",
                   "/registry-credentials", {}, {}, Show::kTable,
                   {{"NAME", "name"}, {"HOST", "host"}, {"USERNAME", "username"},
                    {"SCOPE", "scope"}, {"CREATED", "created_at", C::kAge}}});
  rows->push_back({"credential", "show", "One credential, without its secret", "GET",
                   "/registry-credentials/{name}", {"name"}, {}});
  rows->push_back({"credential", "update", "Replace a credential", "PUT",
                   "/registry-credentials/{name}", {"name"}, secret});
  rows->push_back({"credential", "delete", "Forget a credential", "DELETE",
                   "/registry-credentials/{name}", {"name"}, {}});
}

void AddFleet(std::vector<CommandRow>* rows) {
  rows->push_back({"group", "update", "Change a group", "PATCH", "/availability-groups/{group}",
                   {"group"},
                   {kName, kDescription,
                    {"--auto-images", "auto_images", K::kBool, "true or false"}}});
  rows->push_back({"group", "plan", "What a change of its members would do; nothing is changed",
                   "POST", "/availability-groups/{group}/plan", {"group"},
                   {{"--add-image", "add_images", K::kList, "id or name (repeatable)"},
                    {"--remove-image", "remove_images", K::kList, "id or name (repeatable)"},
                    {"--add-worker", "add_workers", K::kList, "id or name (repeatable)"},
                    {"--remove-worker", "remove_workers", K::kList, "id or name (repeatable)"}},
                   Show::kWhole,
                   {{"WORKER", "worker_name"}, {"IMAGE", "image_name"}, {"ACTION", "action"},
                    {"BYTES", "bytes", C::kBytes}, {"REASON", "reason"}}});

  rows->push_back({"worker", "label", "Set a worker's labels", "PATCH", "/workers/{worker}",
                   {"worker"}, {{"--label", "labels", K::kPairs, "KEY=VALUE (repeatable)"}}});
  rows->push_back({"worker", "drain", "Give it no new bunkers", "POST", "/workers/{worker}/drain",
                   {"worker"},
                   {{"--deadline-s", "deadline_s", K::kNumber, "how long its bunkers may take"},
                    {"--then", "then", K::kText, "wait or stop"}}});
  rows->push_back({"worker", "resume", "Give it bunkers again", "POST", "/workers/{worker}/resume",
                   {"worker"}, {}});
  rows->push_back({"worker", "gc", "Evict what nothing wants", "POST", "/workers/{worker}/gc",
                   {"worker"}, {{"--dry-run", "dry_run", K::kFlag, "only say what it would do"}}});
  rows->push_back({"worker", "remove", "End its credential and forget it", "DELETE",
                   "/workers/{worker}", {"worker"},
                   {{"--force", "force", K::kFlag, "though it runs bunkers"}}});
  rows->push_back({"worker-token", "create", "A token with which a worker joins once", "POST",
                   "/worker-tokens", {"name"},
                   {kScope, {"--tenant", "tenant_id", K::kText, "of scope tenant"},
                    {"--partner", "partner_id", K::kText, "of scope partner"},
                    {"--label", "labels", K::kPairs, "KEY=VALUE (repeatable)"},
                    {"--shared", "shared", K::kFlag, "tenants may use it"},
                    {"--ttl-s", "ttl_s", K::kNumber, "1 to 600"}}});
  rows->push_back({"worker-token", "list", "Tokens that are not used up", "GET", "/worker-tokens",
                   {}, {}, Show::kTable,
                   {{"WORKER", "name"}, {"SCOPE", "scope"}, {"SHARED", "shared"},
                    {"EXPIRES", "expires_at"}, {"USED", "used_at"}, {"ID", "id"}}});
  rows->push_back({"worker-token", "show", "One token, without its secret", "GET",
                   "/worker-tokens/{token}", {"token"}, {}});
  rows->push_back({"worker-token", "revoke", "Make a token useless", "DELETE",
                   "/worker-tokens/{token}", {"token"}, {}});
}

void AddBridges(std::vector<CommandRow>* rows) {
  rows->push_back({"bridge", "create", "Open a bridge that workers report to tenants", "POST",
                   "/bridges", {"name"},
                   {kScope, {"--tenant", "tenant_ids", K::kList, "who may attach (repeatable)"},
                    {"--worker", "workers", K::kList, "id or name (repeatable); else all"}}});
  rows->push_back({"bridge", "list", "Bridges that bunkers may attach to", "GET", "/bridges", {},
                   {}, Show::kTable,
                   {{"NAME", "name"}, {"SCOPE", "scope"}, {"CREATED", "created_at", C::kAge},
                    {"ID", "id"}}});
  rows->push_back({"bridge", "show", "One bridge", "GET", "/bridges/{bridge}", {"bridge"}, {}});
  rows->push_back({"bridge", "delete", "Close it; not while a live bunker is attached", "DELETE",
                   "/bridges/{bridge}", {"bridge"}, {}});
}

void AddLifecycle(std::vector<CommandRow>* rows) {
  rows->push_back({"bunker", "stop", "End its VM and keep its disk", "POST",
                   "/bunkers/{bunker}/stop", {"bunker"}, {}});
  rows->push_back({"bunker", "start", "Start it again, with the disk of before", "POST",
                   "/bunkers/{bunker}/start", {"bunker"}, {}});
  rows->push_back({"bunker", "restart", "Stop and start in one step", "POST",
                   "/bunkers/{bunker}/restart", {"bunker"}, {}});
  rows->push_back({"bunker", "pause", "Freeze it where it is; it holds what it has", "POST",
                   "/bunkers/{bunker}/pause", {"bunker"}, {}});
  rows->push_back({"bunker", "resume", "Let a paused one go on", "POST",
                   "/bunkers/{bunker}/resume", {"bunker"}, {}});
  rows->push_back({"bunker", "update", "Change name, labels and times", "PATCH",
                   "/bunkers/{bunker}", {"bunker"},
                   {kName, {"--label", "label_set", K::kPairs, "KEY=VALUE, in place of all before"},
                    {"--idle-timeout-s", "idle_timeout_s", K::kNumber, "without use"},
                    {"--max-lifetime-s", "max_lifetime_s", K::kNumber, "since its creation"}}});
}

void AddSnapshots(std::vector<CommandRow>* rows) {
  rows->push_back({"snapshot", "create", "Keep what a bunker's disk holds now", "POST",
                   "/bunkers/{bunker}/snapshot", {"bunker"},
                   {{"--name", "name", K::kText, "of the snapshot"},
                    {"--memory", "memory", K::kFlag, "what runs goes on in copies of it"}}});
  rows->push_back({"snapshot", "list", "All snapshots that you may see", "GET", "/snapshots", {},
                   {{"--bunker", "bunker", K::kText, "of this one alone: id or name"}},
                   Show::kTable,
                   {{"NAME", "name"}, {"STATE", "status"}, {"CREATED AT", "created_at", C::kAge},
                    {"IMAGE", "image"}, {"SIZE", "size_bytes", C::kBytes}, {"DISK MB", "disk_mb"},
                    {"BUNKER", "bunker_id"}, {"ID", "id"}}});
  rows->push_back({"snapshot", "show", "One snapshot", "GET", "/snapshots/{snapshot}",
                   {"snapshot"}, {}});
  rows->push_back({"snapshot", "delete", "Remove it, and its file on the worker", "DELETE",
                   "/snapshots/{snapshot}", {"snapshot"}, {}});
}

void AddFiles(std::vector<CommandRow>* rows) {
  rows->push_back({"file", "list", "What is in a folder", "GET", "/bunkers/{bunker}/files",
                   {"bunker", "path"}, {}, Show::kTable,
                   {{"NAME", "name"}, {"TYPE", "type"}, {"MODE", "mode"}, {"UID", "uid"},
                    {"SIZE", "size", C::kBytes}, {"MODIFIED", "modified_at", C::kAge}}});
  rows->push_back({"file", "show", "One file, folder or link", "GET",
                   "/bunkers/{bunker}/files?stat=true", {"bunker", "path"}, {}});
  rows->push_back({"file", "rm", "Remove a file, a link or an empty folder", "DELETE",
                   "/bunkers/{bunker}/files", {"bunker", "path"},
                   {{"--recursive", "recursive", K::kFlag, "a folder with all that is in it"}}});
  rows->push_back({"file", "mkdir", "A new folder", "POST", "/bunkers/{bunker}/files/mkdir",
                   {"bunker", "path"},
                   {{"--parents", "parents", K::kFlag, "those above it, too; it may be there"},
                    {"--mode", "mode", K::kText, "octal; 0755 without it"}}});
  rows->push_back({"file", "mv", "Give it another name", "POST", "/bunkers/{bunker}/files/move",
                   {"bunker", "from", "to"},
                   {{"--overwrite", "overwrite", K::kFlag, "what has that name already"}}});
}

void AddQuotasAndAudit(std::vector<CommandRow>* rows) {
  std::vector<Flag> update = kProfileFlags;
  update.push_back(kName);
  rows->push_back({"quota-profile", "create", "New caps; what is left out is not capped", "POST",
                   "/quota-profiles", {"name"}, kProfileFlags});
  rows->push_back({"quota-profile", "list", "All profiles", "GET", "/quota-profiles", {}, {},
                   Show::kTable,
                   {{"NAME", "name"}, {"SCOPE", "scope"}, {"BUNKERS", "max_concurrent_bunkers"},
                    {"MILLICORES", "max_cpu_millicores"}, {"MEMORY MB", "max_memory_mb"},
                    {"DISK MB", "max_disk_mb"}, {"GPUS", "max_gpu_count"}, {"ID", "id"}}});
  rows->push_back({"quota-profile", "show", "One profile", "GET", "/quota-profiles/{profile}",
                   {"profile"}, {}});
  rows->push_back({"quota-profile", "update", "Change caps", "PATCH", "/quota-profiles/{profile}",
                   {"profile"}, update});
  rows->push_back({"quota-profile", "delete", "Delete a profile that nothing uses", "DELETE",
                   "/quota-profiles/{profile}", {"profile"}, {}});
  rows->push_back({"quota-profile", "usage", "What is used of each profile that applies to you",
                   "GET", "/quota-profiles/usage", {}, {}, Show::kWhole,
                   {{"PROFILE", "profile_name"}, {"MODE", "mode"}, {"BUCKET", "bucket.id"},
                    {"BUNKERS", "usage.bunkers"}, {"OF", "cap.bunkers"},
                    {"MILLICORES", "usage.cpu_millicores"}, {"OF", "cap.cpu_millicores"},
                    {"MEMORY MB", "usage.memory_mb"}, {"OF", "cap.memory_mb"},
                    {"DISK MB", "usage.disk_mb"}, {"OF", "cap.disk_mb"}}});
  rows->push_back({"quota-assignment", "create", "Give a profile to a user or a group", "POST",
                   "/quota-assignments", {},
                   {{"--profile", "profile_id", K::kText, "the profile's id"},
                    {"--kind", "target_kind", K::kText, "user or group"},
                    {"--target", "target_id", K::kText, "its id"},
                    {"--mode", "mode", K::kText, "individual, shared or per_user"}}});
  rows->push_back({"quota-assignment", "list", "Who has which profile", "GET",
                   "/quota-assignments", {}, {}, Show::kTable,
                   {{"PROFILE", "profile_id"}, {"KIND", "target_kind"}, {"TARGET", "target_id"},
                    {"MODE", "mode"}, {"ID", "id"}}});
  rows->push_back({"quota-assignment", "show", "One assignment", "GET",
                   "/quota-assignments/{assignment}", {"assignment"}, {}});
  rows->push_back({"quota-assignment", "delete", "Take a profile back", "DELETE",
                   "/quota-assignments/{assignment}", {"assignment"}, {}});

  rows->push_back({"audit", "list", "Who did what, newest first", "GET", "/audit", {},
                   {{"--actor", "actor", K::kText, "a user's or a key's id"},
                    {"--action", "action", K::kText, "such as Images.RegisterImage"},
                    {"--target", "target", K::kText, "an id"},
                    {"--outcome", "outcome", K::kText, "ok, or an error's code"},
                    {"--since", "since", K::kText, "such as 2030-01-31T12:00:00Z"},
                    {"--until", "until", K::kText, "the same"}},
                   Show::kTable,
                   {{"SEQ", "seq"}, {"AT", "at"}, {"ACTOR", "actor"}, {"ACTION", "action"},
                    {"TARGET", "target"}, {"OUTCOME", "outcome"}, {"REQUEST", "request_id"}}});
}

// clang-format on

}  // namespace

const std::vector<CommandRow>& CommandTable() {
  static const auto* const table = [] {
    auto* rows = new std::vector<CommandRow>();
    AddTenancy(rows);
    AddUsers(rows);
    AddImages(rows);
    AddFleet(rows);
    AddBridges(rows);
    AddLifecycle(rows);
    AddSnapshots(rows);
    AddFiles(rows);
    AddQuotasAndAudit(rows);
    return rows;
  }();
  return *table;
}

const char* NounHelp(const std::string& noun) {
  static const auto* const help = new std::map<std::string, const char*>{
      {"partner", "Partners: who tenants belong to"},
      {"tenant", "Tenants: who things belong to"},
      {"user", "Users of a tenant"},
      {"user-group", "Groups of users: permissions and quotas together"},
      {"key", "Keys: what a user calls with"},
      {"image", "Images: register, list, watch them fan out"},
      {"bunker", "Bunkers: create, use, stop, start and end them"},
      {"package", "Packages inside images"},
      {"credential", "Credentials of registries"},
      {"bridge", "Bridges of hosts, for network profile transit"},
      {"group", "Availability groups: which workers have which images"},
      {"worker", "Workers: the hosts that run bunkers"},
      {"worker-token", "Tokens with which workers join"},
      {"snapshot", "Snapshots: what bunkers' disks held, to create others from"},
      {"quota-profile", "Caps on what may be used"},
      {"quota-assignment", "Who has which caps"},
      {"file", "Files in bunkers; see also cp"},
      {"audit", "What was done, by whom"}};
  const auto found = help->find(noun);
  return found == help->end() ? "" : found->second;
}

}  // namespace bunker::ctl
