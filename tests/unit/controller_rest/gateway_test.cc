// Wrong input over REST, each with its code and a message that says what to do; paging,
// idempotency, limits.
#include <unistd.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

using GatewayTest = GatewayFixture;

std::string Registration(const std::string& name, const std::string& more = "") {
  return R"({"name": ")" + name +
         R"(", "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"}, "size_mib": 64)" +
         more + "}";
}

TEST_F(GatewayTest, KeysAreAskedForFirst) {
  const std::string expired = AddUser("expired", Role::kTenantAdmin);
  const std::string revoked = AddUser("revoked", Role::kTenantAdmin);
  Boot();
  const auto get = [this](const std::string& headers) {
    return Raw("GET", std::string(kModule) + "/images", headers);
  };
  const Answer none = get("");
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.code(), "AUTH_TOKEN_MISSING");
  EXPECT_EQ(none.headers.count("www-authenticate"), 1u);
  EXPECT_EQ(get("Authorization: Basic abc\r\n").code(), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(get("Authorization: Bearer\r\n").code(), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(get("Authorization: Bearer sgk_nope\r\n").code(), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(get("Authorization: Bearer " + revoked + "\r\n").code(), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(get("Authorization: Bearer " + expired + "\r\n").code(), "SESSION_EXPIRED");
  EXPECT_EQ(get("authorization: bearer " + key_ + "\r\n").status, 200);
  // Whatever is wrong with the request, who has no key learns that alone.
  EXPECT_EQ(Raw("POST", std::string(kModule) + "/images", "", "{\"x\":").code(),
            "AUTH_TOKEN_MISSING");
  for (const char* open : {"/health", "/ready", "/v1/modules/scaibunker/health"})
    EXPECT_EQ(Raw("GET", open, "").status, 200) << open;
}

TEST_F(GatewayTest, WrongBodiesNameTheField) {
  Boot();
  struct Case {
    std::string body;
    std::string field;
    std::string says;
  };
  const std::vector<Case> cases = {
      {Registration("x", R"(, "colour": 1)"), "colour", "is no field here"},
      {Registration("x", R"(, "sizeMib": 1)"), "sizeMib", "spelled size_mib"},
      {Registration("x", R"(, "name": "y")"), "name", "occurs twice"},
      {R"({"name": 7})", "name", "must be a string"},
      {R"({"name": "x", "size_mib": "64"})", "size_mib", "without quotes"},
      {"{\"name\": \"x\"", "", "a comma or } is missing"},
      {"[]", "", "must be a JSON object"},
      {" ", "", "body is empty"},
      {Registration("x", R"(, "pull_secret": "s")"), "pull_secret", "no registry credential"},
      {Registration("x", R"(, "pull_secret": "S")"), "pull_secret", "a-z"},
      {Registration("x", R"(, "resource_category": ["CPU", "CPU"])"), "resource_category[1]",
       "occurs twice"},
      {Registration("X"), "name", "a-z"},
      {Registration("img_1"), "name", "begins like an id"},
      {Registration("01a1fe2e-7662-70b8-8a3d-ed6846cd2fc5"), "name", "UUID"},
      {R"({"name": "x", "build_source": {"kind": "oci", "ref": "a"}, "size_mib": 15})", "size_mib",
       "16 to 1048576"},
      {R"({"name": "x", "build_source": {"kind": "oci"}, "size_mib": 64})", "build_source.ref",
       "is required"},
      {R"({"name": "x", "build_source": {"kind": "oci", "ref": "UPPER"}, "size_mib": 64})",
       "build_source.ref", ""},
      {R"({"name": "x", "build_source": {"kind": "tar", "path": "a"}, "size_mib": 64})",
       "build_source.path", "absolute"},
      {R"({"name": "x", "size_mib": 64})", "build_source.kind", "is required"},
      {Registration("x", R"(, "description": ")" + std::string(513, 'd') + "\""), "description",
       "512"},
  };
  for (const Case& c : cases) {
    const Answer answer = Call("POST", "/images", c.body);
    EXPECT_EQ(answer.status, 422) << c.body << answer.body;
    EXPECT_EQ(answer.code(), "VALIDATION_ERROR") << c.body;
    EXPECT_EQ(answer.field(), c.field) << c.body << answer.body;
    EXPECT_NE(answer.message().find(c.says), std::string::npos) << answer.body;
  }
}

TEST_F(GatewayTest, WhatIsNotBuiltYetIsRefusedByName) {
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("x")).status, 201);
  const Answer transit =
      Call("POST", "/bunkers", R"({"image": "x", "network_profile": "transit"})");
  EXPECT_EQ(transit.status, 422);
  EXPECT_EQ(transit.code(), "TRANSIT_MISSING_INTERFACES");
  EXPECT_EQ(Call("POST", "/bunkers/b/snapshot", R"({"memory": false})").code(), "NOT_FOUND");
  EXPECT_EQ(Call("POST", "/bunkers/b/exec", R"({"command": "x", "stream": false})").code(),
            "NOT_FOUND");
}

TEST_F(GatewayTest, RoutesVerbsAndMediaTypes) {
  Boot();
  EXPECT_EQ(Call("GET", "/nope").code(), "NOT_FOUND");
  EXPECT_EQ(Call("POST", "/images/x/scan").code(), "NOT_FOUND");
  const Answer verb = Call("PUT", "/images");
  EXPECT_EQ(verb.status, 405);
  EXPECT_EQ(verb.code(), "METHOD_NOT_ALLOWED");
  EXPECT_EQ(verb.headers.at("allow"), "GET, POST");
  const std::string path = std::string(kModule) + "/images";
  const Answer form = Raw("POST", path,
                          AuthHeader() + "Content-Type: application/x-www-form-urlencoded\r\n",
                          "a=b");
  EXPECT_EQ(form.status, 415);
  EXPECT_EQ(form.code(), "UNSUPPORTED_MEDIA_TYPE");
  EXPECT_EQ(Raw("POST", path, AuthHeader() + "Content-Type: application/json; charset=utf-8\r\n",
                Registration("x")).status, 201);
  EXPECT_EQ(Call("GET", "/workers", "{\"digest\": \"sha256:abc\"}").field(), "digest");
  EXPECT_EQ(Call("POST", "/images/x/warm", "{}").status, 200);
  EXPECT_EQ(Call("POST", "/images/x/warm", "{\"a\": 1}").field(), "a");
  EXPECT_EQ(Call("GET", "/images?limit=1&limit=2").field(), "limit");
  EXPECT_EQ(Call("GET", "/images?limit=201").field(), "limit");
  EXPECT_EQ(Call("GET", "/images/x?image=y").field(), "image");
  EXPECT_EQ(Call("POST", "/images?name=y", Registration("y")).field(), "name");
  EXPECT_EQ(Call("POST", "/bunkers?wait_s=61", R"({"image": "x"})").field(), "wait_s");
  EXPECT_EQ(Call("GET", "/bunkers/b?wait_s=1").field(), "wait_s");
}

TEST_F(GatewayTest, MissingAndTaken) {
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("x")).status, 201);
  const Answer taken = Call("POST", "/images", Registration("x"));
  EXPECT_EQ(taken.status, 409);
  EXPECT_EQ(taken.code(), "SLUG_CONFLICT");
  for (const char* path : {"/images/y", "/images/y/cache", "/availability-groups/y", "/workers/y",
                           "/bunkers/y", "/images/docker.io%2Fother:1"}) {
    const Answer answer = Call("GET", path);
    EXPECT_EQ(answer.status, 404) << path;
    EXPECT_EQ(answer.code(), "NOT_FOUND");
  }
  EXPECT_EQ(Call("GET", "/images/docker.io%2Fr-base:4.4").data()["name"], "x");
}

TEST_F(GatewayTest, PagesSurviveInsertsAndBelongToTheirTenant) {
  const std::string other = AddUser("other", Role::kTenantAdmin, AddTenant("other"));
  Boot();
  for (int i = 0; i < 5; ++i)
    ASSERT_EQ(Call("POST", "/images", Registration("i" + std::to_string(i))).status, 201);
  std::vector<std::string> names;
  std::string query = "?limit=2";
  for (int page = 0; page < 3; ++page) {
    const Answer answer = Call("GET", "/images" + query);
    ASSERT_EQ(answer.status, 200) << answer.body;
    for (const Json& row : answer.data()) names.push_back(row["name"]);
    EXPECT_EQ(answer.json["has_more"], page < 2);
    if (page < 2) query = "?limit=2&cursor=" + answer.json["next_cursor"].get<std::string>();
    if (page == 0) {
      ASSERT_EQ(Call("POST", "/images", Registration("late")).status, 201);
    }
  }
  EXPECT_EQ(names, (std::vector<std::string>{"i4", "i3", "i2", "i1", "i0"}));
  const std::string cursor = query.substr(query.find("cursor="));
  EXPECT_EQ(Call("GET", "/availability-groups?" + cursor).field(), "cursor");
  EXPECT_EQ(Raw("GET", std::string(kModule) + "/images?" + cursor,
                "Authorization: Bearer " + other + "\r\n").field(), "cursor");
  EXPECT_EQ(Call("GET", "/images?cursor=AAAA").field(), "cursor");
  EXPECT_EQ(Call("GET", "/images?name=i3").data().size(), 1u);
}

TEST_F(GatewayTest, ARepeatWithTheSameKeyHasOneEffect) {
  const std::string other = AddUser("other", Role::kTenantAdmin, AddTenant("other"));
  Boot();
  const std::string headers = "Content-Type: application/json\r\nIdempotency-Key: k 1\r\n";
  const std::string path = std::string(kModule) + "/availability-groups";
  const Answer first = Raw("POST", path, AuthHeader() + headers, R"({"name": "g"})");
  const Answer again = Raw("POST", path, AuthHeader() + headers, R"({ "name":"g" })");
  ASSERT_EQ(first.status, 201);
  EXPECT_EQ(again.status, 201);
  EXPECT_EQ(again.data(), first.data());
  const Answer changed = Raw("POST", path, AuthHeader() + headers, R"({"name": "h"})");
  EXPECT_EQ(changed.status, 409);
  EXPECT_EQ(changed.code(), "IDEMPOTENCY_CONFLICT");
  EXPECT_EQ(Raw("POST", path, "Authorization: Bearer " + other + "\r\n" + headers,
                R"({"name": "h"})").status, 201);
  // A request that failed had no effect, so its key is still free.
  const std::string key2 = "Content-Type: application/json\r\nIdempotency-Key: k2\r\n";
  EXPECT_EQ(Raw("POST", path, AuthHeader() + key2, R"({"name": "g"})").code(), "SLUG_CONFLICT");
  EXPECT_EQ(Raw("POST", path, AuthHeader() + key2, R"({"name": "g2"})").status, 201);
  EXPECT_EQ(Raw("POST", std::string(kModule) + "/bunkers/b/exec", AuthHeader() + key2,
                R"({"command": "x"})").field(), "Idempotency-Key");
}

TEST_F(GatewayTest, TooManyRequestsAreTurnedAwayWithATime) {
  Boot(Dispatcher::Options{1, 5});
  std::set<int> statuses;
  Answer limited;
  for (int i = 0; i < 7; ++i) {
    const Answer answer = Call("GET", "/images");
    statuses.insert(answer.status);
    if (answer.status == 429) limited = answer;
  }
  EXPECT_EQ(statuses, (std::set<int>{200, 429}));
  EXPECT_EQ(limited.code(), "RATE_LIMITED");
  EXPECT_EQ(limited.headers.at("retry-after"), "1");
  EXPECT_EQ(limited.json["error"]["retry_after"], 1);
  EXPECT_EQ(Raw("GET", "/health", "").status, 200);
}

TEST_F(GatewayTest, AFullDiskIsUnavailableAndNothingIsThere) {
  Boot();
  store_.SetFull(true);
  const Answer refused = Call("POST", "/availability-groups", R"({"name": "g"})");
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(refused.code(), "UNAVAILABLE");
  EXPECT_EQ(Raw("GET", "/ready", "").status, 503);
  EXPECT_EQ(Raw("GET", "/health", "").status, 200);
  EXPECT_EQ(Call("GET", "/availability-groups").data().size(), 0u);
  store_.SetFull(false);
  EXPECT_EQ(Call("POST", "/availability-groups", R"({"name": "g"})").status, 201);
  EXPECT_EQ(Raw("GET", "/ready", "").status, 200);
}

TEST_F(GatewayTest, AClientThatGoesEndsItsCommand) {
  Boot();
  const std::string id = Call("POST", "/images", Registration("x")).data()["id"];
  Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups/g/images", R"({"ref": "x"})");
  const std::string worker = JoinWorker("w1");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
  FinishBake(worker, id);
  const Answer made = Call("POST", "/bunkers", R"({"image": "x", "name": "b"})");
  ASSERT_EQ(made.status, 201) << made.body;
  FinishBoot(worker, made.data()["id"]);
  thread_.Run([this] { exec_->hold = true; });
  const std::string body = R"({"command": "sleep 1000", "timeout_s": 1000})";
  const int fd = SendOnly("POST", "/bunkers/b/exec", body);
  const auto started = [this] {
    return thread_.Run([this] { return exec_->commands.size() == 1; });
  };
  const auto cancelled = [this] {
    return thread_.Run([this] { return exec_->cancelled.size() == 1; });
  };
  ASSERT_TRUE(Eventually(started));
  ::close(fd);
  EXPECT_TRUE(Eventually(cancelled));
}

TEST_F(GatewayTest, AClientThatGoesWhileTheBunkerComesUpRunsNothing) {
  Boot();
  const std::string id = Call("POST", "/images", Registration("x")).data()["id"];
  Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups/g/images", R"({"ref": "x"})");
  const std::string worker = JoinWorker("w1");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
  FinishBake(worker, id);
  const Answer made = Call("POST", "/bunkers", R"({"image": "x", "name": "b"})");
  ASSERT_EQ(made.status, 201) << made.body;
  const std::string body = R"({"command": "cat", "timeout_s": 1000, "stdin": "much"})";
  const int fd = SendOnly("POST", "/bunkers/b/exec", body);
  const auto waits = [this] { return thread_.Run([this] { return core_->waits() == 1; }); };
  ASSERT_TRUE(Eventually(waits));
  ::close(fd);
  EXPECT_TRUE(Eventually([this] { return thread_.Run([this] { return core_->waits() == 0; }); }));
  FinishBoot(worker, made.data()["id"]);
  EXPECT_EQ(Call("POST", "/bunkers/b/exec", R"({"command": "true"})").status, 200);
  EXPECT_EQ(thread_.Run([this] { return exec_->commands.size(); }), 1u);
}

TEST_F(GatewayTest, NetworkFieldsGoWithTheirProfile) {
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("x")).status, 201);
  const auto create = [this](const std::string& fields) {
    return Call("POST", "/bunkers", R"({"image": "x", )" + fields + "}");
  };
  const std::string allowlisted = R"("network_profile": "allowlisted")";
  const std::vector<std::pair<std::string, std::string>> refused = {
      {R"("network_allowlist": ["a.b"])", "network_allowlist"},
      {allowlisted, "network_allowlist"},
      {R"("bandwidth_mbit": 5)", "bandwidth_mbit"},
      {R"("disk_bytes_per_s": 65535)", "disk_bytes_per_s"},
      {R"("disk_iops": 9)", "disk_iops"},
      {R"("network_profile": "registry", "bandwidth_mbit": 0)", "bandwidth_mbit"},
      {R"("network_profile": "registry", "bandwidth_mbit": 10001)", "bandwidth_mbit"}};
  for (const auto& [fields, field] : refused) {
    const Answer answer = create(fields);
    EXPECT_EQ(answer.status, 422) << fields << answer.body;
    EXPECT_EQ(answer.field(), field);
  }
  const std::string label(63, 'a');
  for (const std::string& name :
       {std::string("https://a.b"), std::string("a.b/c"), std::string("a.b:80"),
        std::string("**.a.b"), std::string("a.*.b"), std::string("*a.b"), std::string("*"),
        std::string("a..b"), std::string(".a.b"), std::string("a.b."), std::string("-a.b"),
        std::string("a-.b"), std::string("a.b-"), std::string("10.0.0.1"), std::string("a b.c"),
        std::string("a_b.c"), std::string(""), label + "a.b", std::string("\u00e4.b")}) {
    const Answer answer = create(allowlisted + R"(, "network_allowlist": ["ok.example", ")" +
                                 name + "\"]");
    EXPECT_EQ(answer.field(), "network_allowlist[1]") << name << answer.body;
  }
  for (const std::string& name : {std::string("a.b"), std::string("*.x.y"), std::string("A-1.Ex"),
                                  std::string("1.pool.ntp.org"), label + ".b"}) {
    const Answer answer =
        create(allowlisted + R"(, "network_allowlist": [")" + name + "\"]");
    EXPECT_NE(answer.code(), "VALIDATION_ERROR") << name << answer.body;
  }
}

}  // namespace
}  // namespace bunker::controller
