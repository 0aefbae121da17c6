// Every RPC of the table against every role, over its REST route: who is let through, who gets
// 403, and that another tenant's things look as if they weren't there.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "controller/api/auth.h"
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

constexpr Role kRoles[] = {Role::kTenantViewer, Role::kTenantUser, Role::kTenantAdmin,
                           Role::kPartnerAdmin, Role::kSuperAdmin};

// Written out, not derived from the table under test.
const std::map<std::string, std::set<Role>>& Allowed() {
  static const std::set<Role> everyone(std::begin(kRoles), std::end(kRoles));
  static const std::set<Role> users = {Role::kTenantUser, Role::kTenantAdmin, Role::kPartnerAdmin,
                                       Role::kSuperAdmin};
  static const std::set<Role> admins = {Role::kTenantAdmin, Role::kPartnerAdmin, Role::kSuperAdmin};
  static const std::map<std::string, std::set<Role>> allowed = {
      {"Health.GetHealth", everyone}, {"Health.GetReady", everyone},
      {"Accounts.WhoAmI", everyone},
      {"Images.RegisterImage", admins}, {"Images.ListImages", everyone},
      {"Images.GetImage", everyone}, {"Images.GetImageCache", everyone},
      {"Images.WarmImage", admins}, {"Images.DeactivateImage", admins},
      {"AvailabilityGroups.CreateAvailabilityGroup", admins},
      {"AvailabilityGroups.ListAvailabilityGroups", everyone},
      {"AvailabilityGroups.GetAvailabilityGroup", everyone},
      {"AvailabilityGroups.DeleteAvailabilityGroup", admins},
      {"AvailabilityGroups.AttachImage", admins}, {"AvailabilityGroups.DetachImage", admins},
      {"AvailabilityGroups.AttachWorker", admins}, {"AvailabilityGroups.DetachWorker", admins},
      {"Workers.ListWorkers", everyone}, {"Workers.GetWorker", everyone},
      {"Workers.UpdateWorker", admins}, {"Workers.DrainWorker", admins},
      {"Workers.ResumeWorker", admins}, {"Workers.RemoveWorker", admins},
      {"WorkerTokens.CreateWorkerToken", admins}, {"WorkerTokens.ListWorkerTokens", admins},
      {"WorkerTokens.GetWorkerToken", admins}, {"WorkerTokens.DeleteWorkerToken", admins},
      {"QuotaProfiles.CreateQuotaProfile", admins}, {"QuotaProfiles.ListQuotaProfiles", admins},
      {"QuotaProfiles.GetQuotaProfile", admins}, {"QuotaProfiles.UpdateQuotaProfile", admins},
      {"QuotaProfiles.DeleteQuotaProfile", admins}, {"QuotaProfiles.GetQuotaUsage", everyone},
      {"QuotaAssignments.CreateQuotaAssignment", admins},
      {"QuotaAssignments.ListQuotaAssignments", admins},
      {"QuotaAssignments.GetQuotaAssignment", admins},
      {"QuotaAssignments.DeleteQuotaAssignment", admins},
      {"Placement.ExplainPlacement", users},
      {"Bunkers.CreateBunker", users}, {"Bunkers.ListBunkers", everyone},
      {"Bunkers.GetBunker", everyone}, {"Bunkers.DeleteBunker", users},
      {"Bunkers.Exec", users}};
  return allowed;
}

std::string BodyFor(const std::string& method, const std::string& tag) {
  if (method == "RegisterImage")
    return R"({"name": "i)" + tag +
           R"(", "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"}, "size_mib": 64})";
  if (method == "CreateAvailabilityGroup") return R"({"name": "g)" + tag + "\"}";
  if (method == "CreateBunker" || method == "ExplainPlacement") return R"({"image": "none"})";
  if (method == "CreateWorkerToken") return R"({"name": "w)" + tag + "\"}";
  if (method == "CreateQuotaProfile") return R"({"name": "q)" + tag + "\"}";
  if (method == "AttachImage" || method == "AttachWorker") return R"({"ref": "none"})";
  if (method == "Exec") return R"({"command": "true"})";
  return "";
}

class AuthMatrixTest : public GatewayFixture {
 protected:
  // The route with "none" in place of its variables.
  Answer Ask(const Route& route, const std::string& key, const std::string& tag,
             const std::map<std::string, std::string>& variables = {}) {
    std::string path;
    for (const Route::Segment& segment : route.segments) {
      const auto it = variables.find(segment.text);
      path += "/" + (!segment.is_variable ? segment.text
                                          : it == variables.end() ? "none" : it->second);
    }
    const std::string body = BodyFor(route.method->name(), tag);
    return Raw(route.verb, path,
               "Authorization: Bearer " + key + "\r\n" +
                   (body.empty() ? "" : "Content-Type: application/json\r\n"), body);
  }
};

TEST_F(AuthMatrixTest, EveryRouteForEveryRole) {
  std::map<Role, std::string> keys;
  for (const Role role : kRoles) keys[role] = AddUser("m" + std::string(NameOf(role)), role);
  Boot();
  int cases = 0;
  for (const Route& route : gateway_->router().routes()) {
    const std::string name = route.method->service()->name() + "." + route.method->name();
    ASSERT_EQ(Allowed().count(name), 1u) << name << " is not in this test's table";
    for (const auto& [role, key] : keys) {
      const Answer answer = Ask(route, key, std::to_string(++cases));
      const bool allowed = Allowed().at(name).count(role) > 0;
      EXPECT_EQ(answer.status != 403, allowed) << name << " " << NameOf(role) << answer.body;
      EXPECT_EQ(answer.code() == "AUTHZ_PERMISSION_DENIED", !allowed) << name;
      EXPECT_NE(answer.status, 401) << name;
      EXPECT_NE(answer.status, 500) << name << answer.body;
    }
    const bool is_public = route.method->service()->name() == "Health";
    EXPECT_EQ(Raw(route.verb, "/" + [&] {
                std::string path;
                for (const auto& s : route.segments)
                  path += (path.empty() ? "" : "/") + (s.is_variable ? "none" : s.text);
                return path;
              }(), "").status == 401, !is_public) << name;
  }
  EXPECT_EQ(cases, static_cast<int>(gateway_->router().routes().size()) * 5);
}

TEST_F(AuthMatrixTest, AnotherTenantsThingsAreNotThere) {
  const std::string mine = AddUser("mine", Role::kTenantAdmin);
  const std::string theirs = AddUser("theirs", Role::kTenantAdmin, AddTenant("other"));
  Boot();
  const auto as = [this](const std::string& key, const std::string& method,
                         const std::string& path, const std::string& body) {
    return Raw(method, kModule + path,
               "Authorization: Bearer " + key + "\r\nContent-Type: application/json\r\n", body);
  };
  const std::string image = as(mine, "POST", "/images", BodyFor("RegisterImage", "x"))
                                .data()["id"];
  const std::string group = as(mine, "POST", "/availability-groups",
                               BodyFor("CreateAvailabilityGroup", "x")).data()["id"];
  int asked = 0;
  for (const Route& route : gateway_->router().routes()) {
    std::set<std::string> variables;
    for (const auto& segment : route.segments)
      if (segment.is_variable) variables.insert(segment.text);
    if (variables.count("image") == 0 && variables.count("group") == 0) continue;
    const Answer foreign = Ask(route, theirs, "", {{"image", image}, {"group", group}});
    const Answer missing = Ask(route, theirs, "", {{"image", "img_" + std::string(32, '0')},
                                                   {"group", "ag_" + std::string(32, '0')}});
    EXPECT_EQ(foreign.status, 404) << route.method->name() << foreign.body;
    EXPECT_EQ(missing.status, 404) << route.method->name();
    // The same words, but for the id.
    const auto normal = [](std::string text, const std::string& id) {
      for (size_t at; (at = text.find(id)) != std::string::npos;) text.replace(at, id.size(), "ID");
      return text;
    };
    EXPECT_EQ(normal(normal(foreign.message(), image), group),
              normal(normal(missing.message(), "img_" + std::string(32, '0')),
                     "ag_" + std::string(32, '0')));
    ++asked;
  }
  EXPECT_GE(asked, 9);
  EXPECT_EQ(as(theirs, "GET", "/images", "").data().size(), 0u);
  // Their create by its name finds nothing either.
  EXPECT_EQ(as(theirs, "POST", "/bunkers", R"({"image": "ix"})").code(), "NOT_FOUND");
}

TEST_F(AuthMatrixTest, ScopesAboveTheRoleAreDenied) {
  const std::string tenant = AddUser("t", Role::kTenantAdmin);
  const std::string partner = AddUser("p", Role::kPartnerAdmin);
  Boot();
  const auto create = [this](const std::string& key, const std::string& name,
                             const std::string& scope) {
    return Raw("POST", std::string(kModule) + "/availability-groups",
               "Authorization: Bearer " + key + "\r\nContent-Type: application/json\r\n",
               R"({"name": ")" + name + R"(", "scope": ")" + scope + "\"}");
  };
  EXPECT_EQ(create(tenant, "a", "partner").status, 403);
  EXPECT_EQ(create(tenant, "b", "platform").status, 403);
  EXPECT_EQ(create(partner, "c", "partner").status, 201);
  EXPECT_EQ(create(partner, "d", "platform").status, 403);
  EXPECT_EQ(create(key_, "e", "platform").status, 201);
  // Seen, but not the tenant's to change.
  const auto as_tenant = [&](const std::string& method, const std::string& path) {
    return Raw(method, kModule + path, "Authorization: Bearer " + tenant + "\r\n");
  };
  EXPECT_EQ(as_tenant("GET", "/availability-groups/e").status, 200);
  EXPECT_EQ(as_tenant("DELETE", "/availability-groups/e").status, 403);
  EXPECT_EQ(as_tenant("DELETE", "/availability-groups/c").status, 403);
}

}  // namespace
}  // namespace bunker::controller
