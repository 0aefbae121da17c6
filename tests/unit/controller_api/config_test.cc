#include "controller/config.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "controller/init.h"
#include "controller/store/mem_store.h"

namespace bunker::controller {
namespace {

absl::StatusOr<ControllerConfig> Parse(const std::string& text) {
  return ParseControllerConfig(text, "controller.toml");
}

TEST(ConfigTest, EverythingHasADefault) {
  const auto config = Parse("");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rest.ToString(), "127.0.0.1:8080");
  EXPECT_EQ(config->grpc.ToString(), "127.0.0.1:7443");
  EXPECT_EQ(config->state_file(), "/var/lib/bunker-controller/state.db");
  EXPECT_EQ(config->lost_after_s, 300u);
}

TEST(ConfigTest, ReadsEveryOption) {
  const auto config = Parse(R"(
[state]
dir = "/srv/c"
[rest]
address = "[::1]:9000"
tls_certificate = "/c.pem"
tls_key = "/k.pem"
max_connections = 10
max_connections_per_ip = 5
[grpc]
address = "0.0.0.0:9001"
tls_certificate = "/c.pem"
tls_key = "/k.pem"
[admin]
socket = "/run/x/a.sock"
[limits]
requests_per_s = 1.5
request_burst = 3
[placement]
cpu_overcommit = 2.0
memory_reserve_mb = 100
disk_reserve_mb = 200
[workers]
offline_after_s = 5
lost_after_s = 6
[images]
sweep_interval_s = 7
[audit]
retention_days = 30
[snapshots]
per_tenant = 3
mib_per_tenant = 4
deadline_s = 50
[network]
package_registries = []
)");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rest.ToString(), "[::1]:9000");
  EXPECT_TRUE(config->rest.is_loopback());
  EXPECT_FALSE(config->grpc.is_loopback());
  EXPECT_EQ(config->requests_per_s, 1.5);
  EXPECT_EQ(config->cpu_overcommit, 2.0);
  EXPECT_EQ(config->sweep_interval_s, 7u);
  EXPECT_EQ(config->audit_retention_days, 30u);
  EXPECT_EQ(config->snapshots_per_tenant, 3u);
  EXPECT_EQ(config->snapshot_mib_per_tenant, 4u);
  EXPECT_EQ(config->snapshot_deadline_s, 50u);
}

TEST(ConfigTest, RefusalsNameTheOption) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"[rest]\nadress = \"127.0.0.1:1\"", "adress"},
      {"[resst]", "resst"},
      {"[snapshots]\ndeadline_s = 9", "deadline_s"},
      {"[rest]\naddress = \"localhost:1\"", "rest.address"},
      {"[rest]\naddress = \"127.0.0.1\"", "rest.address"},
      {"[rest]\naddress = \"127.0.0.1:70000\"", "rest.address"},
      {"[rest]\ntls_key = \"/k\"", "rest.tls_certificate"},
      {"[grpc]\naddress = \"0.0.0.0:1\"", "grpc.address"},
      {"[state]\ndir = \"relative\"", "state.dir"},
      {"[admin]\nsocket = \"a.sock\"", "admin.socket"},
      {"[limits]\nrequests_per_s = \"many\"", "requests_per_s"},
      {"[placement]\ncpu_overcommit = 0.0", "cpu_overcommit"},
      {"[workers]\nlost_after_s = 10", "workers.lost_after_s"},
      {"[network]\npackage_registries = [\"packages.example\"]", "network.package_registries"},
      {"[rest", "controller.toml"},
  };
  for (const auto& [text, names] : bad) {
    const auto config = Parse(text);
    EXPECT_FALSE(config.ok()) << text;
    EXPECT_NE(std::string(config.status().message()).find(names), std::string::npos)
        << config.status();
  }
}

TEST(InitTest, OnceAndTheSecretIsNotStored) {
  MemStore store;
  EXPECT_FALSE(*IsInitialised(store));
  const auto made = InitStore(store, absl::Now());
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->key.size(), 47u);
  EXPECT_TRUE(*IsInitialised(store));
  for (const auto& [id, body] : store.rows())
    EXPECT_EQ(body.find(made->key.substr(4)), std::string::npos);
  const auto again = InitStore(store, absl::Now());
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace bunker::controller
