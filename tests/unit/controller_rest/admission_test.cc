// Who gets in when more is asked for than there is: parallel creates over REST against the room of
// scripted agents, and against quotas; and the routes around it.
#include <atomic>
#include <thread>

#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

// The scripted agent has 4000 millicores: room for 50 of these.
constexpr char kSmall[] = R"({"image": "r", "cpu_millicores": 80, "memory_mb": 64, "disk_mb": 64)";

class AdmissionTest : public GatewayFixture {
 protected:
  void Start(int workers) {
    Boot();
    const std::string image =
        Call("POST", "/images",
             R"({"name": "r", "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"},
                 "size_mib": 64})")
            .data()["id"];
    const std::string group = Call("POST", "/availability-groups", R"({"name": "g"})").data()["id"];
    EXPECT_EQ(Call("POST", "/availability-groups/g/images", R"({"ref": "r"})").status, 200);
    for (int i = 0; i < workers; ++i) {
      const std::string worker = JoinWorker("w" + std::to_string(i));
      workers_.push_back(worker);
      EXPECT_EQ(
          Call("POST", "/availability-groups/g/workers", R"({"ref": ")" + worker + "\"}").status,
          200);
      FinishBake(worker, image);
    }
  }

  // `count` creates at once, each on a connection of its own.
  std::vector<Answer> CreateAtOnce(int count, const std::string& body) {
    std::vector<Answer> answers(static_cast<size_t>(count));
    std::vector<std::thread> threads;
    std::atomic<int> ready{0};
    for (Answer& answer : answers) {
      threads.emplace_back([&] {
        ++ready;
        while (ready < count) std::this_thread::yield();
        answer = Call("POST", "/bunkers", body);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return answers;
  }

  size_t LiveBunkers() {
    size_t live = 0;
    std::string cursor;
    do {
      const Answer page = Call("GET", "/bunkers?limit=200" + cursor);
      for (const Json& row : page.data()) live += row["terminated_at"].is_null() ? 1 : 0;
      cursor = page.json["has_more"] ? "&cursor=" + std::string(page.json["next_cursor"]) : "";
    } while (!cursor.empty());
    return live;
  }

  std::string UserId() { return Raw("GET", "/v1/whoami", AuthHeader()).data()["user"]["id"]; }

  void Assign(const std::string& caps) {
    EXPECT_EQ(Call("POST", "/quota-profiles", R"({"name": "p", )" + caps + "}").status, 201);
    const Answer assigned =
        Call("POST", "/quota-assignments",
             R"({"profile_id": "p", "target_kind": "user", "target_id": ")" + UserId() + "\"}");
    EXPECT_EQ(assigned.status, 201) << assigned.body;
  }

  void CheckInvariants() {
    const absl::Status status =
        InTurn([](Engine& engine, Turn&) { return engine.CheckInvariants(); });
    EXPECT_TRUE(status.ok()) << status;
  }

  std::vector<std::string> workers_;
};

class AdmissionRounds : public AdmissionTest, public testing::WithParamInterface<int> {};

TEST_P(AdmissionRounds, RoomForFiftyTakesFiftyOfTwoHundred) {
  Start(1);
  int created = 0;
  int refused = 0;
  for (const Answer& answer : CreateAtOnce(200, kSmall + std::string("}"))) {
    if (answer.status == 201) {
      ++created;
      continue;
    }
    EXPECT_EQ(answer.status, 503) << answer.body;
    EXPECT_EQ(answer.code(), "WORKER_UNAVAILABLE");
    const Json& error = answer.json["error"];
    EXPECT_EQ(error["counts"], Json({{"cpu", 1}}));
    EXPECT_EQ(error["details"][0]["worker_id"], workers_[0]);
    EXPECT_EQ(error["details"][0]["shortfall"], "not enough cpu: 0 millicores left, 80 needed");
    EXPECT_FALSE(std::string(error["details"][0]["remedy"]).empty());
    ++refused;
  }
  EXPECT_EQ(created, 50);
  EXPECT_EQ(refused, 150);
  EXPECT_EQ(LiveBunkers(), 50u);
  CheckInvariants();
}

TEST_P(AdmissionRounds, AQuotaOfFiftyLetsFiftyOfTwoHundredIn) {
  Start(2);  // room for 100
  Assign(R"("max_concurrent_bunkers": 50)");
  int created = 0;
  int refused = 0;
  for (const Answer& answer : CreateAtOnce(200, kSmall + std::string("}"))) {
    if (answer.status == 201) {
      ++created;
      continue;
    }
    EXPECT_EQ(answer.status, 429) << answer.body;
    EXPECT_EQ(answer.code(), "BUNKER_QUOTA_EXCEEDED");
    EXPECT_NE(answer.message().find("quota profile p: max_concurrent_bunkers is 50, 50 in use"),
              std::string::npos)
        << answer.message();
    ++refused;
  }
  EXPECT_EQ(created, 50);
  EXPECT_EQ(refused, 150);
  EXPECT_EQ(LiveBunkers(), 50u);
  CheckInvariants();
}

TEST_P(AdmissionRounds, ReplicasThatCompeteComeAllOrNotAtAll) {
  Start(1);
  int created = 0;
  for (const Answer& answer : CreateAtOnce(40, kSmall + std::string(R"(, "replicas": 6})"))) {
    if (answer.status != 201) {
      EXPECT_EQ(answer.code(), "WORKER_UNAVAILABLE") << answer.body;
      continue;
    }
    EXPECT_EQ(answer.data().size(), 7u);
    ++created;
  }
  EXPECT_EQ(created, 7);
  EXPECT_EQ(LiveBunkers(), 49u);
  CheckInvariants();
}

INSTANTIATE_TEST_SUITE_P(ThreeTimes, AdmissionRounds, testing::Range(0, 3));

TEST_F(AdmissionTest, ReplicasGiveAListAndOneIdempotencyRecord) {
  Start(1);
  const auto create = [this](const std::string& body) {
    return Raw("POST", std::string(kModule) + "/bunkers",
               AuthHeader() + "Content-Type: application/json\r\nIdempotency-Key: k1\r\n", body);
  };
  const std::string body = kSmall + std::string(R"(, "name": "web", "replicas": 2})");
  const Answer first = create(body);
  ASSERT_EQ(first.status, 201) << first.body;
  ASSERT_EQ(first.data().size(), 3u);
  EXPECT_EQ(first.data()[0]["name"], "web");
  EXPECT_EQ(first.data()[2]["name"], "web-2");
  EXPECT_EQ(create(body).data(), first.data());
  EXPECT_EQ(LiveBunkers(), 3u);
  EXPECT_EQ(create(kSmall + std::string(R"(, "replicas": 2})")).code(), "IDEMPOTENCY_CONFLICT");
  // Given, it makes a list even of one; absent, an object.
  EXPECT_TRUE(
      Call("POST", "/bunkers", kSmall + std::string(R"(, "replicas": 0})")).data().is_array());
  EXPECT_TRUE(Call("POST", "/bunkers", kSmall + std::string("}")).data().is_object());
  EXPECT_EQ(Call("POST", "/bunkers", kSmall + std::string(R"(, "replicas": 101})")).field(),
            "replicas");
}

TEST_F(AdmissionTest, WaitingForReplicasWaitsForAll) {
  Start(1);
  Answer answer;
  std::thread client([&] {
    answer = Call("POST", "/bunkers?wait_s=20", kSmall + std::string(R"(, "replicas": 1})"));
  });
  std::vector<std::string> ids;
  EXPECT_TRUE(Eventually([&] {
    ids.clear();
    const Answer listed = Call("GET", "/bunkers");
    for (const Json& row : listed.data()) ids.push_back(row["id"]);
    return ids.size() == 2;
  }));
  for (const std::string& id : ids) FinishBoot(workers_[0], id);
  client.join();
  ASSERT_EQ(answer.status, 201) << answer.body;
  for (const Json& row : answer.data()) EXPECT_EQ(row["status"], "running");
}

TEST_F(AdmissionTest, ExplainSaysWhatACreateWouldFind) {
  Start(2);
  EXPECT_EQ(Call("POST", "/workers/" + workers_[1] + "/drain", "{}").status, 200);
  const Answer good = Call("POST", "/placement/explain", kSmall + std::string("}"));
  ASSERT_EQ(good.status, 200) << good.body;
  EXPECT_EQ(good.data()["placeable"], true);
  EXPECT_EQ(good.data()["eligible"], 1);
  EXPECT_EQ(good.data()["workers"][0]["worker_id"], workers_[0]);
  EXPECT_GT(good.data()["workers"][0]["score"], 10.0);
  EXPECT_EQ(good.data()["workers"][1]["predicate"], "status");
  EXPECT_EQ(good.data()["workers"][1]["shortfall"], "the worker is draining");
  EXPECT_EQ(LiveBunkers(), 0u);
  const Answer gpu = Call("POST", "/placement/explain",
                          kSmall + std::string(R"(, "gpu_count": 1, "gpu_type": "A100"})"));
  EXPECT_EQ(gpu.data()["code"], "WORKER_UNAVAILABLE");
  EXPECT_EQ(gpu.data()["counts"]["gpu"], 1);
  const Answer refused = Call("POST", "/bunkers", kSmall + std::string(R"(, "gpu_count": 1})"));
  EXPECT_EQ(refused.code(), "WORKER_UNAVAILABLE");
  EXPECT_EQ(refused.json["error"]["details"][0]["predicate"], "gpu");
  EXPECT_EQ(
      Call("POST", "/placement/explain", kSmall + std::string(R"(, "gpu_type": "A100"})")).field(),
      "gpu_type");
  const Answer many =
      Call("POST", "/placement/explain", kSmall + std::string(R"(, "replicas": 50})"));
  EXPECT_EQ(many.data()["placeable"], false);
  EXPECT_NE(std::string(many.data()["message"]).find("only 50 of 51"), std::string::npos);
}

TEST_F(AdmissionTest, OfASharedWorkerATenantSeesTheResourceNotTheAmount) {
  const std::string user = AddUser("u", Role::kTenantUser);
  Start(1);  // the platform's, shared
  EXPECT_EQ(Call("POST", "/bunkers",
                 R"({"image": "r", "cpu_millicores": 3990, "memory_mb": 64, "disk_mb": 64})")
                .status,
            201);
  const auto as_user = [&](const std::string& path, const std::string& body) {
    return Raw("POST", kModule + path,
               "Authorization: Bearer " + user + "\r\nContent-Type: application/json\r\n", body);
  };
  const Answer refused = as_user("/bunkers", kSmall + std::string("}"));
  EXPECT_EQ(refused.json["error"]["details"][0]["shortfall"], "not enough cpu");
  const Answer fits = as_user("/placement/explain", R"({"image": "r", "cpu_millicores": 50,
                              "memory_mb": 64, "disk_mb": 64})");
  EXPECT_EQ(fits.data()["eligible"], 0);
  const Answer row = Raw("GET", std::string(kModule) + "/workers/" + workers_[0],
                         "Authorization: Bearer " + user + "\r\n");
  for (const char* hidden : {"capacity", "allocated", "version", "last_heartbeat", "drain"})
    EXPECT_TRUE(row.data()[hidden].is_null()) << hidden;
  EXPECT_TRUE(row.data()["cached_images"].empty());
}

TEST_F(AdmissionTest, WorkersAreJoinedLabelledDrainedAndRemoved) {
  const std::string tenant = AddUser("t", Role::kTenantAdmin);
  Start(1);
  const auto as = [&](const std::string& method, const std::string& path,
                      const std::string& body = "") {
    return Raw(method, kModule + path,
               "Authorization: Bearer " + tenant + "\r\n" +
                   (body.empty() ? "" : "Content-Type: application/json\r\n"),
               body);
  };
  const Answer token = as("POST", "/worker-tokens", R"({"name": "mine", "labels": {"a": "b"}})");
  ASSERT_EQ(token.status, 201) << token.body;
  EXPECT_EQ(std::string(token.data()["token"]).substr(0, 4), "wtk_");
  EXPECT_EQ(token.data()["scope"], "tenant");
  const std::string id = token.data()["id"];
  EXPECT_TRUE(as("GET", "/worker-tokens/" + id).data()["token"].is_null());
  EXPECT_EQ(as("GET", "/worker-tokens").data().size(), 1u);
  EXPECT_EQ(as("POST", "/worker-tokens", R"({"name": "x", "ttl_s": 601})").field(), "ttl_s");
  EXPECT_EQ(as("POST", "/worker-tokens", R"({"name": "x", "scope": "platform"})").status, 403);
  EXPECT_EQ(as("POST", "/worker-tokens", R"({"name": "x", "shared": true})").field(), "shared");
  EXPECT_EQ(as("DELETE", "/worker-tokens/" + id).status, 200);
  EXPECT_EQ(as("GET", "/worker-tokens/" + id).status, 404);

  // A repeat of the creation gives the row, not the token once more.
  const auto repeat = [&] {
    return Raw("POST", std::string(kModule) + "/worker-tokens",
               AuthHeader() + "Content-Type: application/json\r\nIdempotency-Key: t\r\n",
               R"({"name": "again"})");
  };
  const Answer once = repeat();
  EXPECT_FALSE(once.data()["token"].is_null());
  const Answer twice = repeat();
  EXPECT_EQ(twice.data()["id"], once.data()["id"]);
  EXPECT_TRUE(twice.data()["token"].is_null());

  // The platform's worker: seen, not theirs.
  const std::string worker = "/workers/" + workers_[0];
  EXPECT_EQ(as("POST", worker + "/drain", "{}").status, 403);
  EXPECT_EQ(as("DELETE", worker).status, 403);
  EXPECT_EQ(as("PATCH", worker, R"({"labels": {"metro": "ams"}})").status, 403);
  EXPECT_EQ(Call("PATCH", worker, R"({"labels": {"metro": "ams"}})").data()["labels"]["metro"],
            "ams");
  const Answer drained = Call("POST", worker + "/drain", R"({"deadline_s": 60, "then": "stop"})");
  EXPECT_EQ(drained.data()["status"], "draining") << drained.body;
  EXPECT_EQ(drained.data()["drain"]["then"], "stop");
  EXPECT_FALSE(drained.data()["drain"]["deadline"].is_null());
  EXPECT_EQ(Call("GET", "/workers?status=draining").data().size(), 1u);
  EXPECT_EQ(Call("GET", "/workers?status=online").data().size(), 0u);
  EXPECT_EQ(Call("POST", worker + "/drain", R"({"then": "stop"})").field(), "then");
  EXPECT_EQ(Call("POST", worker + "/resume").data()["status"], "online");
  const Answer bunker = Call("POST", "/bunkers", kSmall + std::string("}"));
  EXPECT_EQ(bunker.status, 201);
  EXPECT_EQ(Call("DELETE", worker).code(), "RESOURCE_IN_USE");
  EXPECT_EQ(Call("DELETE", worker + "?force=true").status, 200);
  EXPECT_EQ(Call("GET", worker).status, 404);
  const Answer failed = Call("GET", "/bunkers/" + std::string(bunker.data()["id"]));
  EXPECT_EQ(failed.data()["status"], "failed");
  EXPECT_EQ(failed.data()["status_reason"], "WORKER_REMOVED");
  CheckInvariants();
}

TEST_F(AdmissionTest, QuotasAreMadeAssignedUsedAndTakenAway) {
  const std::string user = AddUser("u", Role::kTenantUser);
  Start(1);
  Assign(R"("max_concurrent_bunkers": 2, "per_bunker_max_memory": 1024)");
  EXPECT_EQ(Call("POST", "/bunkers", kSmall + std::string(R"(, "replicas": 1})")).status, 201);
  const Answer usage = Call("GET", "/quota-profiles/usage");
  ASSERT_EQ(usage.status, 200) << usage.body;
  ASSERT_EQ(usage.data().size(), 1u) << usage.body;
  const Json& row = usage.data()[0];
  EXPECT_EQ(row["profile_name"], "p");
  EXPECT_EQ(row["mode"], "individual");
  EXPECT_EQ(row["bucket"]["kind"], "user");
  EXPECT_EQ(row["usage"]["bunkers"], 2);
  EXPECT_EQ(row["usage"]["memory_mb"], 128);  // without what placement adds
  EXPECT_EQ(row["cap"]["bunkers"], 2);
  EXPECT_EQ(row["headroom"]["bunkers"], 0);
  EXPECT_TRUE(row["cap"]["cpu_millicores"].is_null());
  EXPECT_EQ(Call("POST", "/bunkers", kSmall + std::string("}")).status, 429);
  // A user who has none is not bound, sees its own usage only, and no profiles.
  const std::string header = "Authorization: Bearer " + user + "\r\n";
  EXPECT_EQ(Raw("GET", std::string(kModule) + "/quota-profiles/usage", header).data().size(), 0u);
  EXPECT_EQ(
      Raw("GET", std::string(kModule) + "/quota-profiles/usage?user_id=" + UserId(), header).status,
      403);
  EXPECT_EQ(Raw("GET", std::string(kModule) + "/quota-profiles", header).status, 403);
  EXPECT_EQ(Call("POST", "/quota-profiles", R"({"name": "p"})").code(), "SLUG_CONFLICT");
  EXPECT_EQ(Call("DELETE", "/quota-profiles/p").code(), "RESOURCE_IN_USE");
  const std::string assignment = Call("GET", "/quota-assignments").data()[0]["id"];
  EXPECT_EQ(Call("DELETE", "/quota-assignments/" + assignment).status, 200);
  EXPECT_EQ(Call("DELETE", "/quota-profiles/p").status, 200);
  EXPECT_EQ(Call("POST", "/bunkers", kSmall + std::string("}")).status, 201);
  EXPECT_EQ(Call("POST", "/quota-assignments",
                 R"({"profile_id": "p", "target_kind": "user", "target_id": "usr_x",
                     "mode": "shared"})")
                .status,
            404);
}

}  // namespace
}  // namespace bunker::controller
