// The calls of the tutorial "Register a custom image", as its clients send them.
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

constexpr char kRegister[] = R"({
    "name": "r-stats",
    "display_name": "R 4.4 with tidyverse",
    "description": "R statistical computing environment with the tidyverse pre-installed.",
    "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"},
    "size_mib": 4096,
    "default_cpu_millicores": 2000,
    "default_memory_mb": 4096,
    "default_disk_mb": 8192,
    "preinstalled": ["R", "tidyverse", "ggplot2", "dplyr"]
  })";

using SeedTest = GatewayFixture;

TEST_F(SeedTest, TheTutorialFromRegisterToDeactivate) {
  Boot();
  const Answer image = Call("POST", "/images", kRegister);
  ASSERT_EQ(image.status, 201) << image.body;
  EXPECT_EQ(image.json["status"], "ok");
  EXPECT_EQ(image.json["meta"]["request_id"].get<std::string>().substr(0, 4), "req_");
  EXPECT_EQ(image.data()["warm"],
            (Json{{"queued", 0}, {"ready", 0}, {"failed", 0}, {"skipped", 0}}));
  EXPECT_TRUE(image.data()["resolved_digest"].is_null());
  EXPECT_EQ(image.data()["scan_status"], "pending");
  const std::string id = image.data()["id"];

  // 6, too early: nothing has it.
  const std::string create =
      R"({"image": "r-stats", "lifecycle_mode": "ephemeral", "network_profile": "registry"})";
  const Answer early = Call("POST", "/bunkers", create);
  EXPECT_EQ(early.status, 503);
  EXPECT_EQ(early.code(), "NO_SUITABLE_WORKER");
  EXPECT_NE(early.message().find("lazy_pull"), std::string::npos);
  EXPECT_TRUE(early.json["error"]["details"].is_array());
  EXPECT_TRUE(early.json["error"]["counts"].is_object());

  // 4.
  const Answer group = Call("POST", "/availability-groups",
                            R"({"name": "stats-tenant-default",
                                "description": "R + Python stats workers"})");
  ASSERT_EQ(group.status, 201) << group.body;
  const std::string group_path = "/availability-groups/" + group.data()["id"].get<std::string>();
  EXPECT_EQ(Call("POST", group_path + "/images", "{\"ref\": \"" + id + "\"}").status, 200);
  const std::string worker = JoinWorker("w1");
  const Answer attached = Call("POST", group_path + "/workers", R"({"ref": "w1"})");
  ASSERT_EQ(attached.status, 200) << attached.body;
  EXPECT_EQ(attached.data()["worker_ids"], Json::array({worker}));
  EXPECT_EQ(attached.data()["image_ids"], Json::array({id}));

  // 3.
  const Answer pending = Call("GET", "/images/" + id + "/cache");
  ASSERT_EQ(pending.data().size(), 1u) << pending.body;
  EXPECT_EQ(pending.data()[0]["status"], "pending");
  EXPECT_EQ(pending.data()[0]["worker_name"], "w1");
  EXPECT_EQ(pending.json["has_more"], false);
  FinishBake(worker, id);
  const Answer ready = Call("GET", "/images/" + id + "/cache");
  EXPECT_EQ(ready.data()[0]["status"], "ready") << ready.body;
  EXPECT_EQ(ready.data()[0]["rootfs_digest"], "fsverity-sha256:" + std::string(64, 'c'));
  EXPECT_TRUE(ready.data()[0]["error"].is_null());
  const Answer warm = Call("POST", "/images/" + id + "/warm");
  EXPECT_EQ(warm.status, 200);
  EXPECT_EQ(warm.data(), (Json{{"queued", 0}, {"ready", 1}, {"failed", 0}, {"skipped", 0}}));
  const Answer row = Call("GET", "/images/r-stats");
  EXPECT_EQ(row.data()["url"],
            "docker.io/library/r-base@sha256:" + std::string(64, 'a'));
  EXPECT_EQ(row.data()["env"], (Json{{"PATH", "/usr/bin:/bin"}, {"LANG", "C.UTF-8"}}));
  EXPECT_EQ(row.data()["cache_summary"]["ready"], 1);

  // 6.
  const Answer bunker = Call("POST", "/bunkers", create);
  ASSERT_EQ(bunker.status, 201) << bunker.body;
  EXPECT_EQ(bunker.data()["status"], "provisioning");
  EXPECT_EQ(bunker.data()["worker_id"], worker);
  EXPECT_EQ(bunker.data()["cpu_millicores"], 2000);
  EXPECT_EQ(bunker.data()["image_id"], id);
  EXPECT_EQ(bunker.data()["max_lifetime_s"], 3600);
  EXPECT_EQ(bunker.data()["idle_timeout_s"], 600);

  // 7.
  const Answer gone = Call("DELETE", "/images/" + id);
  EXPECT_EQ(gone.status, 200);
  EXPECT_EQ(gone.data()["active"], false);
  EXPECT_EQ(Call("POST", "/bunkers", create).code(), "IMAGE_INACTIVE");
  EXPECT_EQ(Call("GET", "/bunkers/" + bunker.data()["id"].get<std::string>()).data()["status"],
            "provisioning");
}

TEST_F(SeedTest, CreateWaitsAndExecWaitsForABunkerThatComesUp) {
  Boot();
  const std::string id = Call("POST", "/images", kRegister).data()["id"];
  ASSERT_EQ(Call("POST", "/availability-groups", R"({"name": "g"})").status, 201);
  Call("POST", "/availability-groups/g/images", R"({"ref": "r-stats"})");
  const std::string worker = JoinWorker("w1");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
  FinishBake(worker, id);
  const Answer made = Call("POST", "/bunkers", R"({"image": "r-stats", "name": "calc"})");
  ASSERT_EQ(made.status, 201) << made.body;
  const std::string bunker = made.data()["id"];
  // A short wait ends with the row as it is.
  EXPECT_EQ(Call("GET", "/bunkers/calc?wait_status=running&wait_s=0").data()["status"],
            "provisioning");

  exec_->outcome.stdout_data = "ok\xFF";
  exec_->outcome.stdout_bytes = 4;
  exec_->outcome.duration_ms = 2.5;
  Answer ran;
  std::thread client([&] {
    ran = Call("POST", "/bunkers/calc/exec", R"({"command": ["echo", "a b"], "cwd": "/tmp"})");
  });
  FinishBoot(worker, bunker);
  client.join();
  ASSERT_EQ(ran.status, 200) << ran.body;
  EXPECT_EQ(ran.data()["stdout"], "ok\xEF\xBF\xBD");
  EXPECT_EQ(ran.data()["exit_code"], 0);
  EXPECT_TRUE(ran.data()["signal"].is_null());
  EXPECT_EQ(ran.data()["truncated"], true);
  EXPECT_EQ(ran.data()["duration_ms"], 2.5);
  ASSERT_EQ(exec_->commands.size(), 1u);
  EXPECT_EQ(exec_->commands[0].argv, (std::vector<std::string>{"echo", "a b"}));
  EXPECT_TRUE(exec_->commands[0].allow_root);
  EXPECT_EQ(exec_->commands[0].timeout, absl::Seconds(60));

  const Answer exact = Call("POST", "/bunkers/calc/exec",
                            R"({"command": "true", "output": "base64", "timeout_s": 5})");
  EXPECT_EQ(exact.data()["stdout"], "b2v/");
  const Answer row = Call("GET", "/bunkers/" + bunker + "?wait_status=running&wait_s=20");
  EXPECT_EQ(row.data()["status"], "running");
  EXPECT_EQ(row.data()["isolation"], "tcg");
  EXPECT_EQ(row.data()["timings"]["boot_ms"], 1234.5);
  EXPECT_EQ(Call("DELETE", "/bunkers/calc").data()["status"], "stopping");
  EXPECT_EQ(Call("POST", "/bunkers/" + bunker + "/exec", R"({"command": "true"})").code(),
            "BUNKER_NOT_RUNNING");
}

}  // namespace
}  // namespace bunker::controller
