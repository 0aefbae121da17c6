#include "agent/net/ruleset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Ruleset, AGuardedBunkerForwardsNothing) {
  RulesetSpec spec;
  spec.ports = {80, 443};
  spec.refused = {*ParseRange("10.0.0.0/8")};
  const std::string text = BunkerRuleset(spec);
  EXPECT_THAT(text, HasSubstr("tcp dport { 80, 443 } redirect to :15080"));
  EXPECT_THAT(text,
              HasSubstr("chain forward { type filter hook forward priority 0; policy drop; }"));
  EXPECT_THAT(text, Not(HasSubstr("masquerade")));
  EXPECT_THAT(text, Not(HasSubstr("up0")));
  EXPECT_THAT(text, Not(HasSubstr("10.0.0.0/8")));
  EXPECT_THAT(text, Not(HasSubstr("$")));
}

TEST(Ruleset, AForwardingOneRefusesFirst) {
  RulesetSpec spec;
  spec.forwards = true;
  spec.ports = {80};
  spec.refused = {*ParseRange("10.0.0.0/8"), *ParseRange("127.0.0.0/8")};
  spec.exempt = {*ParseRange("10.9.0.0/16")};
  const std::string text = BunkerRuleset(spec);
  EXPECT_THAT(text, HasSubstr("elements = { 10.0.0.0/8, 127.0.0.0/8 };"));
  EXPECT_THAT(text, HasSubstr("elements = { 10.9.0.0/16 };"));
  EXPECT_LT(text.find("ip daddr @closed ip daddr != @exempt goto refuse"),
            text.find("update @allowed {"));
  EXPECT_THAT(text, Not(HasSubstr("$")));
}

// Every hook that a packet can take drops what no rule names; and the link filter is there.
TEST(Ruleset, EveryHookDropsByDefault) {
  for (const bool forwards : {false, true}) {
    RulesetSpec spec;
    spec.forwards = forwards;
    spec.ports = {80};
    const std::string text = BunkerRuleset(spec);
    for (const char* hook : {"ingress", "prerouting priority -150", "input", "output", "forward"}) {
      const size_t at = text.find(std::string("hook ") + hook);
      ASSERT_NE(at, std::string::npos) << hook;
      EXPECT_THAT(text.substr(at, 80), HasSubstr("policy drop")) << hook;
    }
    EXPECT_THAT(text, HasSubstr("ether saddr != 02:62:6b:00:00:02 drop"));
  }
}

TEST(Ruleset, OnlyWhatIsThereIsReplaced) {
  RulesetSpec spec;
  spec.ports = {80};
  const std::string text = BunkerRuleset(spec);
  const size_t old_ones = text.rfind("delete table");
  ASSERT_NE(old_ones, std::string::npos);
  EXPECT_LT(old_ones, text.find("table netdev bunker_link {"));
  EXPECT_LT(old_ones, text.find("table inet bunker {"));
  spec.is_first = true;
  EXPECT_EQ(text.substr(text.find("table netdev bunker_link {")), BunkerRuleset(spec));
}

TEST(Ruleset, TheHostIsOpenForBunkersAlone) {
  HostRulesetSpec spec{*ParseRange("10.201.0.0/16"), true};
  EXPECT_THAT(HostRuleset(spec), HasSubstr("iifname != \"bkv*\" drop"));
  EXPECT_THAT(HostRuleset(spec), HasSubstr("iifname \"bkv*\" oifname \"bkv*\" drop"));
  spec.forwarding_was_off = false;
  EXPECT_THAT(HostRuleset(spec), Not(HasSubstr("iifname != ")));
}

}  // namespace
}  // namespace bunker::agent
