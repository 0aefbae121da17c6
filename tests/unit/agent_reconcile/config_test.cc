#include "agent/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  const auto config = ParseAgentConfig(text, "agent.toml");
  return config.ok() ? "" : std::string(config.status().message());
}

TEST(AgentConfig, AnEmptyFileIsUsable) {
  const auto config = ParseAgentConfig("", "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->worker_name.empty());
  EXPECT_EQ(config->accelerator, "auto");
}

TEST(AgentConfig, ReadsEverySection) {
  const auto config = ParseAgentConfig(R"(
[controller]
address = "controller.example:7443"
tls = true
[worker]
name = "w1"
labels = {zone = "a"}
cpu_millicores = 4000
[images]
tar_root = "/srv/images"
mirrors = {"docker.io" = "127.0.0.1:5000"}
[[images.registry]]
host = "127.0.0.1:5000"
allow_address = true
[vm]
accelerator = "tcg"
)", "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->controller_tls);
  EXPECT_EQ(config->labels.at("zone"), "a");
  EXPECT_EQ(config->mirrors.at("docker.io"), "127.0.0.1:5000");
  ASSERT_EQ(config->registries.size(), 1u);
  EXPECT_TRUE(config->registries[0].allow_address);
}

TEST(AgentConfig, MistakesNameTheOptionAndTheRemedy) {
  EXPECT_THAT(ErrorOf("[worker]\nnmae = 'x'"), HasSubstr("unknown config option worker.nmae"));
  EXPECT_THAT(ErrorOf("[wroker]\n"), HasSubstr("unknown config option wroker"));
  EXPECT_THAT(ErrorOf("[worker]\ncpu_millicores = '4'"), HasSubstr("worker.cpu_millicores"));
  EXPECT_THAT(ErrorOf("[worker]\ncpu_millicores = -1"), HasSubstr("whole number"));
  EXPECT_THAT(ErrorOf("[vm]\naccelerator = 'xen'"), HasSubstr("auto, kvm or tcg"));
  EXPECT_THAT(ErrorOf("[state]\ndir = 'relative'"), HasSubstr("absolute"));
  EXPECT_THAT(ErrorOf("[[images.registry]]\n"), HasSubstr("images.registry.host is missing"));
  EXPECT_THAT(ErrorOf("[vm\n"), HasSubstr("agent.toml:1"));
}

TEST(AgentConfig, NetworkOptionsAreHeldToTheirForm) {
  EXPECT_EQ(ErrorOf("[network]\npackage_registries = ['pypi.example', '*.x.y']\n"
                    "egress_ports = [80, 8443]\negress_allow = ['10.1.0.0/16', 'mirror.lan']"),
            "");
  EXPECT_THAT(ErrorOf("[network]\npackage_registries = ['http://x']"), HasSubstr("no host name"));
  EXPECT_THAT(ErrorOf("[network]\negress_ports = [0]"), HasSubstr("1 to 65535"));
  EXPECT_THAT(ErrorOf("[network]\negress_ports = []"), HasSubstr("egress_ports"));
  EXPECT_THAT(ErrorOf("[network]\negress_deny = ['10.0.0.1/8']"), HasSubstr("10.0.0.0/8"));
  EXPECT_THAT(ErrorOf("[network]\negress_allow = ['a b']"), HasSubstr("egress_allow"));
  EXPECT_THAT(ErrorOf("[network]\nuplinks = 'x'"), HasSubstr("no IPv4 address"));
  EXPECT_EQ(ErrorOf("[network]\nbridges = ['br-lab', 'br0.7']"), "");
  EXPECT_THAT(ErrorOf("[network]\nbridges = ['../etc']"), HasSubstr("network.bridges"));
  EXPECT_THAT(ErrorOf("[network]\nbridges = ['sixteen-letters-']"), HasSubstr("no name"));
}

TEST(AgentConfig, NoBridgeIsOpenByDefault) {
  const auto config = ParseAgentConfig("", "agent.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(NetworkOptionsOf(*config).bridges.empty());
}

}  // namespace
}  // namespace bunker::agent
