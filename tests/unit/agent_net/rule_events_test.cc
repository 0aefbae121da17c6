#include "agent/net/rule_events.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

constexpr absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

std::string Ruleset(const std::string& set, const std::string& value) {
  return R"({"nftables": [{"metainfo": {}}, {"set": {"name": ")" + set +
         R"(", "timeout": 600, "elem": [{"elem": {"val": )" + value +
         R"(, "expires": 590, "counter": {"packets": 7, "bytes": 1}}}]}},
         {"rule": {"expr": []}}]})";
}

TEST(RuleEvents, ElementsAreEventsAndNoPartOfTheRules) {
  const auto seen = ReadRules(Ruleset("refused", R"({"concat": ["192.0.2.9", "tcp", 25]})"), kNow);
  ASSERT_TRUE(seen.ok()) << seen.status();
  ASSERT_EQ(seen->events.size(), 1u);
  EXPECT_EQ(seen->events[0].dst(), "192.0.2.9");
  EXPECT_EQ(seen->events[0].port(), 25u);
  EXPECT_EQ(seen->events[0].rule(), "policy");
  const auto other = ReadRules(Ruleset("refused", R"({"concat": ["192.0.2.8", "tcp", 25]})"), kNow);
  EXPECT_EQ(seen->text, other->text);
}

TEST(RuleEvents, WhatTransitRefusedIsToldByItsRule) {
  struct Case {
    const char* set;
    const char* value;
    const char* rule;
    const char* proto;
    const char* dst;
    const char* name;
  };
  const Case cases[] = {
      {"refused_mac", R"("02:00:00:00:00:09")", "mac", "ethernet", "", "02:00:00:00:00:09"},
      {"refused_arp", R"("192.0.2.1")", "arp", "arp", "192.0.2.1", ""},
      {"refused_source", R"({"concat": ["192.0.2.9", "192.0.2.1", "udp"]})", "source", "udp",
       "192.0.2.1", "192.0.2.9"},
      {"refused_type", R"("ip6")", "ethertype", "ip6", "", ""},
      {"refused_dhcp", R"("255.255.255.255")", "dhcp", "udp", "255.255.255.255", ""},
  };
  for (const Case& one : cases) {
    const auto seen = ReadRules(Ruleset(one.set, one.value), kNow);
    ASSERT_TRUE(seen.ok()) << seen.status();
    ASSERT_EQ(seen->events.size(), 1u) << one.set;
    const v1::GuardEvent& event = seen->events[0];
    EXPECT_EQ(event.rule(), one.rule);
    EXPECT_EQ(event.proto(), one.proto);
    EXPECT_EQ(event.dst(), one.dst);
    EXPECT_EQ(event.name(), one.name);
    EXPECT_FALSE(event.allowed());
    EXPECT_EQ(event.count(), 7u);
    EXPECT_EQ(event.at_unix_ms(), absl::ToUnixMillis(kNow - absl::Seconds(10)));
  }
}

}  // namespace
}  // namespace bunker::agent
