// Accounts, keys and audit over the real gateway.
#include <unistd.h>

#include <atomic>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/time/clock.h"
#include "common/base/reason.h"
#include "common/base/unique_fd.h"
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

class AccountsRestTest : public GatewayFixture {
 protected:
  Answer As(const std::string& key, const std::string& method, const std::string& path,
            const Json& body = nullptr, const std::string& headers = "") {
    return Raw(method, path,
               "Authorization: Bearer " + key + "\r\n" + headers +
                   (body.is_null() ? "" : "Content-Type: application/json\r\n"),
               body.is_null() ? "" : body.dump());
  }
  Answer Admin(const std::string& method, const std::string& path, const Json& body = nullptr,
               const std::string& headers = "") {
    return As(key_, method, path, body, headers);
  }
  std::string NewUser(const std::string& name, const std::string& role) {
    const Answer answer = Admin("POST", "/v1/users", {{"name", name}, {"role", role}});
    EXPECT_EQ(answer.status, 201) << answer.body;
    return answer.data()["id"];
  }
  // The row: id and key.
  Json NewKey(const std::string& user, Json more = Json::object()) {
    more["name"] = "k";
    more["user_id"] = user;
    const Answer answer = Admin("POST", "/v1/api-keys", more);
    EXPECT_EQ(answer.status, 201) << answer.body;
    return answer.data();
  }
  std::vector<Json> Audit(const std::string& query = "") {
    const Answer answer = Admin("GET", std::string(kModule) + "/audit?limit=200" + query);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.data().get<std::vector<Json>>();
  }
  std::string StreamOf(const std::string& key) {
    Call("POST", "/images", R"({"name": "x", "size_mib": 64,
         "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"}})");
    stream_.reset(OpenStream("/images/x/cache", key));
    return ReadUntil(stream_.get(), "event: synced");
  }

  UniqueFd stream_;
};

TEST_F(AccountsRestTest, AKeyIsShownOnceAndWorks) {
  Boot();
  const std::string user = NewUser("ann", "tenant_user");
  const Json key = NewKey(user, {{"rate_limit_per_s", 7}});
  const std::string secret = key["key"];
  EXPECT_EQ(secret.size(), 47u);
  EXPECT_EQ(secret.rfind("sgk_", 0), 0u);
  const Answer shown = Admin("GET", "/v1/api-keys/" + key["id"].get<std::string>());
  EXPECT_TRUE(shown.data()["key"].is_null()) << shown.body;
  EXPECT_EQ(shown.data()["rate_limit_per_s"], 7);
  const Answer me = As(secret, "GET", "/v1/whoami");
  EXPECT_EQ(me.data()["user"]["name"], "ann");
  EXPECT_EQ(me.data()["role"], "tenant_user");
  EXPECT_EQ(me.data()["key_id"], key["id"]);
  for (const auto& [row, body] : store_.rows()) EXPECT_EQ(body.find(secret), std::string::npos);
}

TEST_F(AccountsRestTest, ARepeatedMintGivesTheSameKeyAndStoresNone) {
  Boot();
  const std::string header = "Idempotency-Key: once\r\n";
  const Answer first = Admin("POST", "/v1/api-keys", {{"name", "k"}}, header);
  ASSERT_EQ(first.status, 201) << first.body;
  const std::string secret = first.data()["key"];
  const Answer again = Admin("POST", "/v1/api-keys", {{"name", "k"}}, header);
  EXPECT_EQ(again.data()["key"], secret);
  EXPECT_EQ(again.data()["id"], first.data()["id"]);
  EXPECT_EQ(Admin("POST", "/v1/api-keys", {{"name", "other"}}, header).code(),
            "IDEMPOTENCY_CONFLICT");
  // Another key of the tenant does not get at it, though it may mint keys itself.
  const Json second = NewKey(NewUser("adm", "tenant_admin"));
  EXPECT_EQ(As(second["key"], "POST", "/v1/api-keys", {{"name", "k"}}, header).code(),
            "IDEMPOTENCY_CONFLICT");
  // Neither as it is nor as the codec keeps bytes.
  std::string hex;
  for (const char c : secret) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  for (const auto& [row, body] : store_.rows()) {
    EXPECT_EQ(body.find(secret), std::string::npos);
    EXPECT_EQ(body.find(hex), std::string::npos);
  }
  // One key was made, not two; and one row says so.
  EXPECT_EQ(Audit("&action=ApiKeys.CreateApiKey&outcome=ok").size(), 2u);
}

TEST_F(AccountsRestTest, RateLimitOfAKey) {
  Boot(Dispatcher::Options{100, 200});
  const Json key = NewKey(NewUser("ann", "tenant_user"), {{"rate_limit_per_s", 1}});
  int served = 0;
  Answer last;
  for (int i = 0; i < 10; ++i) {
    last = As(key["key"], "GET", "/v1/whoami");
    served += last.status == 200;
  }
  EXPECT_GE(served, 2);  // a burst of two seconds' worth
  EXPECT_LE(served, 4);
  EXPECT_EQ(last.code(), "RATE_LIMITED");
  EXPECT_EQ(last.headers["retry-after"], "1");
  EXPECT_EQ(last.json["error"]["retry_after"], 1);
  EXPECT_EQ(Admin("GET", "/v1/whoami").status, 200);
}

TEST_F(AccountsRestTest, RevocationEndsAnOpenStream) {
  Boot();
  const Json key = NewKey(NewUser("ann", "tenant_user"));
  ASSERT_NE(StreamOf(key["key"]).find("event: synced"), std::string::npos);
  EXPECT_EQ(Admin("DELETE", "/v1/api-keys/" + key["id"].get<std::string>()).status, 200);
  EXPECT_NE(ReadUntil(stream_.get(), "event: error").find("AUTH_TOKEN_INVALID"), std::string::npos);
  EXPECT_EQ(As(key["key"], "GET", "/v1/whoami").code(), "AUTH_TOKEN_INVALID");
}

TEST_F(AccountsRestTest, ExpiryEndsAnOpenStream) {
  Boot();
  const std::string soon =
      absl::FormatTime(absl::RFC3339_full, absl::Now() + absl::Seconds(1), absl::UTCTimeZone());
  const Json key = NewKey(NewUser("ann", "tenant_user"), {{"expires_at", soon}});
  ASSERT_NE(StreamOf(key["key"]).find("event: synced"), std::string::npos);
  EXPECT_NE(ReadUntil(stream_.get(), "event: error").find("SESSION_EXPIRED"), std::string::npos);
}

// Every way in which a right can be lost, however it was held. Streams and waits hold admissions.
TEST_F(AccountsRestTest, EveryWayToLoseARightIsNoticed) {
  Boot();
  const std::string tenant = Admin("POST", "/v1/tenants", {{"name", "t2"}}).data()["id"];
  const std::string user =
      Admin("POST", "/v1/users", {{"name", "ann"}, {"tenant_id", tenant}}).data()["id"];
  const Json grants = {"scaibunker:images:manage"};
  const auto group = [&](const std::string& name, const Json& permissions, const Json& parent) {
    return Admin("POST", "/v1/groups",
                 {{"name", name},
                  {"tenant_id", tenant},
                  {"permissions", permissions},
                  {"parent_id", parent}})
        .data()["id"]
        .get<std::string>();
  };
  const std::string outer = group("outer", grants, nullptr);
  const std::string inner = group("inner", Json::array(), outer);
  const std::string at_user = "/v1/users/" + user;
  const std::string at_inner = "/v1/groups/" + inner;
  const std::string member = at_inner + "/members/" + user;
  ASSERT_EQ(Admin("PUT", member).status, 200);
  struct Case {
    std::string method, path;
    Json body;
    std::string undo_method;
    Json undo;
    const char* code;
  };
  const std::vector<Case> cases = {
      {"DELETE", member, nullptr, "PUT", nullptr, "AUTHZ_PERMISSION_DENIED"},
      {"PATCH",
       "/v1/groups/" + outer,
       {{"permissions", Json::array()}},
       "PATCH",
       {{"permissions", grants}},
       "AUTHZ_PERMISSION_DENIED"},
      {"PATCH",
       at_inner,
       {{"parent_id", nullptr}},
       "PATCH",
       {{"parent_id", outer}},
       "AUTHZ_PERMISSION_DENIED"},
      {"PATCH",
       at_user,
       {{"status", "disabled"}},
       "PATCH",
       {{"status", "active"}},
       "AUTH_TOKEN_INVALID"},
      {"PATCH",
       "/v1/tenants/" + tenant,
       {{"status", "suspended"}},
       "PATCH",
       {{"status", "active"}},
       "AUTH_TOKEN_INVALID"},
  };
  for (const Case& one : cases) {
    const Json key = NewKey(user);
    auto lost = std::make_shared<std::promise<absl::Status>>();
    auto held = std::make_shared<std::shared_ptr<Admission>>();
    auto admitted = std::make_shared<std::promise<absl::Status>>();
    CallInfo info;
    info.authorization = "Bearer " + key["key"].get<std::string>();
    dispatcher_->Admit(
        "bunker.v1.Images.WarmImage", info,
        [=](CallContext& context) {
          *held = context.admission;
          (*held)->OnLost([lost](const absl::Status& why) { lost->set_value(why); });
          context.turn.AfterCommit(
              [admitted](const absl::Status& committed) { admitted->set_value(committed); });
        },
        [admitted](const absl::Status& status) { admitted->set_value(status); });
    ASSERT_TRUE(admitted->get_future().get().ok()) << one.path;
    // What does not concern it leaves it alone.
    ASSERT_EQ(Admin("PATCH", "/v1/groups/" + outer, {{"name", "n" + key["id"].get<std::string>()}})
                  .status,
              200);
    ASSERT_EQ(Admin(one.method, one.path, one.body).status, 200) << one.path;
    EXPECT_EQ(ReasonOf(lost->get_future().get()), one.code) << one.method << one.path;
    InTurn([held](Engine&, Turn&) {
      held->reset();
      return true;
    });
    ASSERT_EQ(Admin(one.undo_method, one.path, one.undo).status, 200) << one.path;
  }
}

TEST_F(AccountsRestTest, RevocationEndsARunningExec) {
  Boot();
  const Json key = NewKey(NewUser("ann", "tenant_admin"));
  Call("POST", "/images", R"({"name": "x", "size_mib": 64,
       "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"}})");
  Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups/g/images", R"({"ref": "x"})");
  const std::string worker = JoinWorker("w1");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
  FinishBake(worker, Call("GET", "/images/x").data()["id"]);
  const std::string bunker = Call("POST", "/bunkers", R"({"image": "x"})").data()["id"];
  FinishBoot(worker, bunker);
  exec_->hold = true;
  const std::string admin = std::exchange(key_, key["key"].get<std::string>());
  const UniqueFd fd(SendOnly("POST", "/bunkers/" + bunker + "/exec", R"({"command": "sleep 1"})"));
  key_ = admin;
  ASSERT_TRUE(Eventually([&] { return exec_->commands.size() == 1; }));
  EXPECT_EQ(Admin("DELETE", "/v1/api-keys/" + key["id"].get<std::string>()).status, 200);
  EXPECT_NE(ReadUntil(fd.get(), "}}").find("AUTH_TOKEN_INVALID"), std::string::npos);
  EXPECT_TRUE(Eventually([&] { return exec_->cancelled.size() == 1; }));
  const auto rows = Audit("&action=Bunkers.Exec");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0]["target"], bunker);
  EXPECT_EQ(rows[0].dump().find("sleep"), std::string::npos);  // never the command
}

TEST_F(AccountsRestTest, GroupPatchTellsEmptyFromAbsent) {
  Boot();
  const std::string group =
      Admin("POST", "/v1/groups", {{"name", "g"}, {"permissions", {"scaibunker:shell"}}})
          .data()["id"];
  const std::string path = "/v1/groups/" + group;
  EXPECT_EQ(Admin("PATCH", path, {{"name", "h"}}).data()["permissions"].size(), 1u);
  EXPECT_EQ(Admin("PATCH", path, {{"permissions", Json::array()}}).data()["permissions"].size(),
            0u);
  const Answer bare =
      Admin("POST", "/v1/api-keys", {{"name", "k"}, {"permissions", Json::array()}});
  EXPECT_EQ(bare.data()["restricted"], true) << bare.body;
  EXPECT_EQ(As(bare.data()["key"], "GET", "/v1/users").status, 403);
  const Answer loop = Admin("PATCH", path, {{"parent_id", group}});
  EXPECT_EQ(loop.code(), "VALIDATION_ERROR");
  EXPECT_EQ(loop.field(), "parent_id");
}

TEST_F(AccountsRestTest, NamesOfAnyScriptAndNothingInvisible) {
  Boot();
  const auto status = [&](const std::string& name) {
    return Admin("POST", "/v1/users", {{"name", name}}).status;
  };
  for (const char* good : {"Zoë", "李小龍", "Анна", "o'brien@example.org", "🦊", "a b"})
    EXPECT_EQ(status(good), 201) << good;
  EXPECT_EQ(status("Zoë"), 409);
  for (const char* bad :
       {"", " a", "a ", "a\nb", "a\u200bb", "a\u202eb", "a\u00a0b", "usr_x", "\u2028"})
    EXPECT_EQ(status(bad), 422) << bad;
  EXPECT_EQ(status(std::string(129, 'x')), 422);
  EXPECT_EQ(status(std::string(128, 'x')), 201);
}

TEST_F(AccountsRestTest, TimesThatAreNone) {
  Boot();
  for (const char* bad : {"infinite-future", "infinite-past", "2020-01-01T00:00:00Z", "tomorrow",
                          "9999-12-31T23:59:59Z"}) {
    const Answer answer = Admin("POST", "/v1/api-keys", {{"name", "k"}, {"expires_at", bad}});
    EXPECT_EQ(answer.code(), "VALIDATION_ERROR") << bad << answer.body;
    EXPECT_EQ(answer.field(), "expires_at") << bad;
  }
}

TEST_F(AccountsRestTest, AuditTellsWhoDidWhat) {
  Boot();
  const std::string ann = NewUser("ann", "tenant_user");
  const Json key = NewKey(ann);
  const Answer denied = As(key["key"], "POST", "/v1/users", {{"name", "x"}});
  EXPECT_EQ(denied.status, 403);
  const Answer made = Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups", R"({"name": "g"})");  // SLUG_CONFLICT
  Call("GET", "/availability-groups");                       // no mutation, no row

  const auto rows = Audit();
  ASSERT_EQ(rows.size(), 5u);
  const auto row = [&](size_t i, const char* field) { return rows[i][field].get<std::string>(); };
  EXPECT_EQ(row(0, "outcome"), "SLUG_CONFLICT");
  EXPECT_EQ(row(0, "target"), "g");
  EXPECT_EQ(row(1, "action"), "AvailabilityGroups.CreateAvailabilityGroup");
  EXPECT_EQ(row(1, "target"), made.data()["id"]);
  EXPECT_EQ(row(1, "request_id"), made.json["meta"]["request_id"]);
  EXPECT_EQ(row(1, "outcome"), "ok");
  EXPECT_EQ(row(1, "tenant_id"), tenant_id_);
  EXPECT_EQ(row(2, "outcome"), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(row(2, "actor"), ann);
  EXPECT_EQ(row(2, "key_id"), key["id"]);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i]["intact"], true);
    if (i > 0) {
      EXPECT_EQ(rows[i - 1]["prev_hash"], rows[i]["hash"]);
    }
  }
  const Answer head = Call("GET", "/audit/head");
  EXPECT_EQ(head.data()["seq"], rows[0]["seq"]);
  EXPECT_EQ(head.data()["hash"], rows[0]["hash"]);

  EXPECT_EQ(Audit("&actor=" + ann).size(), 1u);
  EXPECT_EQ(Audit("&actor=" + key["id"].get<std::string>()).size(), 1u);
  EXPECT_EQ(Audit("&target=" + ann).size(), 1u);
  EXPECT_EQ(Audit("&outcome=SLUG_CONFLICT").size(), 1u);
  EXPECT_EQ(Audit("&until=2020-01-01T00:00:00Z").size(), 0u);
  EXPECT_EQ(Audit("&since=2020-01-01T00:00:00Z").size(), 5u);
  EXPECT_EQ(Admin("GET", std::string(kModule) + "/audit?since=yesterday").field(), "since");
  // Pages.
  std::set<uint64_t> seqs;
  std::string cursor;
  for (int page = 0; page < 3; ++page) {
    const Answer answer = Admin(
        "GET", std::string(kModule) + "/audit?limit=2" + (page == 0 ? "" : "&cursor=" + cursor));
    for (const Json& one : answer.data()) seqs.insert(one["seq"].get<uint64_t>());
    EXPECT_EQ(answer.json["has_more"], page < 2);
    if (page < 2) cursor = answer.json["next_cursor"];
  }
  EXPECT_EQ(seqs.size(), 5u);
}

TEST_F(AccountsRestTest, AuditShowsATenantItsOwn) {
  const std::string other = AddTenant("other");
  const std::string theirs = AddUser("theirs", Role::kTenantAdmin, other);
  const std::string mine = AddUser("mine", Role::kTenantAdmin);
  const std::string partner2 = AddPartner("two");
  const std::string far = AddUser("far", Role::kPartnerAdmin, AddTenant("far", partner2));
  const std::string near = AddUser("near", Role::kPartnerAdmin);
  Boot();
  // The super admin does something to the other tenant's: its administrators see that.
  ASSERT_EQ(Admin("POST", "/v1/users", {{"name", "x"}, {"tenant_id", other}}).status, 201);
  const auto count = [&](const std::string& key) {
    return As(key, "GET", std::string(kModule) + "/audit").data().size();
  };
  EXPECT_EQ(count(theirs), 1u);
  EXPECT_EQ(count(mine), 0u);
  EXPECT_EQ(count(near), 1u);
  EXPECT_EQ(count(far), 0u);
  EXPECT_EQ(count(key_), 1u);
}

TEST_F(AccountsRestTest, RefusalsAreCountedAndDoNotFillTheDisk) {
  Boot();
  const Json key = NewKey(NewUser("ann", "tenant_user"));
  for (int i = 0; i < 300; ++i) As(key["key"], "POST", "/v1/users", {{"name", "x"}});
  const auto refused = Audit("&outcome=AUTHZ_PERMISSION_DENIED");
  EXPECT_LT(refused.size(), 120u);
  EXPECT_GE(refused.size(), 60u);
  NewUser("later", "tenant_user");
  uint64_t told = 0;
  for (const Json& row : Audit()) told += row["suppressed"].get<uint64_t>();
  EXPECT_EQ(told + refused.size(), 300u);
}

TEST_F(AccountsRestTest, GroupLoopByConcurrentEdits) {
  Boot();
  for (int round = 0; round < 5; ++round) {
    const std::string tag = std::to_string(round);
    const std::string a = Admin("POST", "/v1/groups", {{"name", "a" + tag}}).data()["id"];
    const std::string b = Admin("POST", "/v1/groups", {{"name", "b" + tag}}).data()["id"];
    std::vector<std::thread> threads;
    std::atomic<int> done{0};
    for (const auto& [id, parent] : {std::pair{a, b}, std::pair{b, a}}) {
      threads.emplace_back([&, id = id, parent = parent] {
        done += Admin("PATCH", "/v1/groups/" + id, {{"parent_id", parent}}).status == 200;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(done, 1);
  }
}

}  // namespace
}  // namespace bunker::controller
