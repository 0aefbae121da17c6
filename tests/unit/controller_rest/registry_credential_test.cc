// Registry credentials over REST: what is taken, what is refused, and that no answer, no row of the
// store and no record of a request holds a secret.
#include <string>
#include <vector>

#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

constexpr char kSecret[] = "canary-Zw7-p4ssw0rd";
constexpr char kPath[] = "/registry-credentials";

class RegistryCredentialTest : public GatewayFixture {
 protected:
  static std::string Body(const std::string& name, const std::string& more = "",
                          const std::string& host = "ghcr.io") {
    return R"({"name": ")" + name + R"(", "host": ")" + host + R"(", "username": "ada", )" +
           R"("password": ")" + kSecret + "\"" + more + "}";
  }
  std::string As(const std::string& key) { return "Authorization: Bearer " + key + "\r\n"; }
  Answer CallAs(const std::string& key, const std::string& method, const std::string& path,
                const std::string& body = "") {
    const std::string type = body.empty() ? "" : "Content-Type: application/json\r\n";
    return Raw(method, kModule + path, As(key) + type, body);
  }
};

TEST_F(RegistryCredentialTest, IsWriteOnly) {
  Boot();
  std::string seen;
  const auto note = [&](const Answer& answer, int status) {
    EXPECT_EQ(answer.status, status) << answer.body;
    seen += answer.body;
    return answer;
  };
  const Answer made = note(Call("POST", kPath, Body("reg", "", "https://ghcr.io/v2/")), 201);
  EXPECT_EQ(made.data()["host"], "ghcr.io");
  EXPECT_EQ(made.data()["username"], "ada");
  EXPECT_EQ(made.data()["scope"], "tenant");
  EXPECT_EQ(made.data()["tenant_id"], tenant_id_);
  EXPECT_EQ(made.data().count("password"), 0u);
  note(Call("GET", kPath), 200);
  EXPECT_EQ(note(Call("GET", std::string(kPath) + "/reg"), 200).data()["name"], "reg");
  note(Call("POST", kPath, Body("reg")), 409);
  note(Call("PUT", std::string(kPath) + "/reg",
            R"({"host": "ghcr.io", "json_key": "{\"key\": \")" + std::string(kSecret) + R"(\"}"})"),
       200);
  EXPECT_EQ(Call("GET", std::string(kPath) + "/reg").data()["username"], "_json_key");
  // With a key for repeats, whose record must not tell the secret either.
  const auto twice = [&] {
    return note(Raw("POST", std::string(kModule) + kPath,
                    AuthHeader() + "Content-Type: application/json\r\nIdempotency-Key: k\r\n",
                    Body("again")),
                201);
  };
  EXPECT_EQ(twice().data(), twice().data());
  note(
      Raw("POST", std::string(kModule) + kPath,
          AuthHeader() + "Content-Type: application/json\r\nIdempotency-Key: k\r\n", Body("other")),
      409);
  note(Call("DELETE", std::string(kPath) + "/again"), 200);
  note(Call("DELETE", std::string(kPath) + "/again"), 404);
  EXPECT_EQ(seen.find(kSecret), std::string::npos) << seen;
  EXPECT_EQ(seen.find("sealed"), std::string::npos);
  for (const auto& [key, body] : store_.rows())
    EXPECT_EQ(body.find(kSecret), std::string::npos) << key.second;
}

TEST_F(RegistryCredentialTest, WrongOnesAreRefusedWithoutRepeatingThem) {
  Boot();
  struct Case {
    std::string body;
    std::string field;
  };
  const std::string secret = kSecret;
  const std::vector<Case> cases = {
      {R"({"name": "x", "host": "ghcr.io", "username": "a"})", "password"},
      {R"({"name": "x", "host": "ghcr.io", "password": ")" + secret + "\"}", "username"},
      {R"({"name": "x", "username": "a", "password": ")" + secret + "\"}", "host"},
      {Body("X"), "name"},
      {Body("img_x"), "name"},
      {Body("x", "", "ghcr.io/team"), "host"},
      {Body("x", "", "https://ada:" + secret + "@ghcr.io"), "host"},
      {Body("x", "", "not a host"), "host"},
      {Body("x", R"(, "json_key": "{}")"), "json_key"},
      {Body("x", R"(, "secret": ")" + secret + "\""), "secret"},
      {Body("x", R"(, "scope": "galaxy")"), "scope"},
      {R"({"name": "x", "host": "g.io", "json_key": "{\n}"})", "json_key"},
      {R"({"name": "x", "host": "g.io", "json_key": ")" + secret + "\"}", "json_key"},
      {R"({"name": "x", "host": "g.io", "username": "a:b", "password": ")" + secret + "\"}",
       "username"},
      {R"({"name": "x", "host": "g.io", "username": "a", "password": ")" + secret + "\\r\\nX: y\"}",
       "password"},
      {R"({"name": "x", "host": "g.io", "username": "a", "password": [")" + secret + "\"]}",
       "password"},
  };
  for (const Case& c : cases) {
    const Answer answer = Call("POST", kPath, c.body);
    EXPECT_EQ(answer.status, 422) << answer.body;
    EXPECT_EQ(answer.field(), c.field) << c.body << answer.body;
    EXPECT_EQ(answer.body.find(secret), std::string::npos) << answer.body;
  }
  EXPECT_EQ(Call("PUT", std::string(kPath) + "/none",
                 R"({"host": "g.io", "username": "a", "password": "b"})")
                .status,
            404);
}

TEST_F(RegistryCredentialTest, EachSeesWhatItMay) {
  const std::string other_tenant = AddTenant("other");
  const std::string user = AddUser("user", Role::kTenantUser);
  const std::string admin = AddUser("admin2", Role::kTenantAdmin);
  const std::string foreign = AddUser("foreign", Role::kTenantAdmin, other_tenant);
  const std::string partner = AddUser("partner", Role::kPartnerAdmin, other_tenant);
  Boot();
  EXPECT_EQ(CallAs(user, "GET", kPath).code(), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(CallAs(user, "POST", kPath, Body("x")).code(), "AUTHZ_PERMISSION_DENIED");
  ASSERT_EQ(CallAs(admin, "POST", kPath, Body("mine")).status, 201);
  const std::string mine = std::string(kPath) + "/mine";
  EXPECT_EQ(CallAs(foreign, "GET", mine).status, 404);
  EXPECT_EQ(CallAs(foreign, "DELETE", mine).status, 404);
  EXPECT_EQ(
      CallAs(foreign, "PUT", mine, R"({"host": "g.io", "username": "a", "password": "b"})").status,
      404);
  EXPECT_EQ(CallAs(foreign, "GET", kPath).data().size(), 0u);
  ASSERT_EQ(CallAs(foreign, "POST", kPath, Body("mine")).status, 201) << "names are per owner";
  EXPECT_EQ(CallAs(admin, "POST", kPath, Body("p", R"(, "scope": "partner")")).status, 403);
  ASSERT_EQ(CallAs(partner, "POST", kPath, Body("p", R"(, "scope": "partner")")).status, 201);
  const Answer seen = CallAs(admin, "GET", std::string(kPath) + "/p");
  EXPECT_EQ(seen.status, 200);
  EXPECT_TRUE(seen.data()["username"].is_null()) << "to use it, its name is enough";
  EXPECT_EQ(CallAs(admin, "DELETE", std::string(kPath) + "/p").status, 403);
  EXPECT_EQ(CallAs(partner, "GET", std::string(kPath) + "/p").data()["username"], "ada");
  ASSERT_EQ(Call("POST", kPath, Body("all", R"(, "scope": "platform")")).status, 201);
  EXPECT_EQ(CallAs(foreign, "GET", std::string(kPath) + "/all").status, 200);
  EXPECT_EQ(CallAs(partner, "DELETE", std::string(kPath) + "/all").status, 403);
}

}  // namespace
}  // namespace bunker::controller
