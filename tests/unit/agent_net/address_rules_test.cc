#include "agent/net/address_rules.h"

#include <gtest/gtest.h>

#include "agent/net/event_log.h"
#include "agent/net/handed_out.h"
#include "agent/net/rule_events.h"

namespace bunker::agent {
namespace {

AddressRules Rules(const std::vector<std::string>& exempt) {
  std::vector<Ipv4Range> refused, allowed;
  for (const std::string& text : DefaultRefusedRanges()) refused.push_back(*ParseRange(text));
  for (const std::string& text : exempt) allowed.push_back(*ParseRange(text));
  return AddressRules(refused, allowed);
}

TEST(Addresses, EverySpecialRangeIsRefusedUnlessExcepted) {
  const AddressRules rules = Rules({"10.9.0.0/16"});
  for (const char* address :
       {"0.0.0.0",     "0.1.2.3",       "10.0.0.1",        "100.64.0.1", "100.127.255.255",
        "127.0.0.1",   "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.0.192", "192.0.2.1",     "192.168.255.255", "198.18.0.1", "198.19.255.255",
        "203.0.113.1", "224.0.0.1",     "239.255.255.255", "240.0.0.1",  "255.255.255.255"}) {
    EXPECT_TRUE(rules.Refuses(*ParseIpv4(address))) << address;
  }
  for (const char* address :
       {"1.1.1.1", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.0.1.1",
        "198.17.0.1", "198.20.0.1", "223.255.255.255", "10.9.255.255"}) {
    EXPECT_FALSE(rules.Refuses(*ParseIpv4(address))) << address;
  }
}

TEST(Addresses, RangesHaveOneForm) {
  EXPECT_EQ(RangeText(*ParseRange("10.0.0.0/8")), "10.0.0.0/8");
  EXPECT_EQ(RangeText(*ParseRange("0.0.0.0/0")), "0.0.0.0/0");
  EXPECT_EQ(RangeText(*ParseRange("1.2.3.4")), "1.2.3.4/32");
  for (const char* bad : {"", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0/8",
                          "10.0.0.0/8x", "::1", "010.0.0.1", "1.2.3.4 ", "1.2.3.4; drop"}) {
    EXPECT_FALSE(ParseRange(bad).ok()) << bad;
  }
}

TEST(HandedOutAddresses, HoldUnderTheirNameAndForTheirTime) {
  HandedOut out;
  out.Add(7, "a", absl::Seconds(10));
  out.Add(7, "b", absl::Seconds(20));
  EXPECT_TRUE(out.Holds(7, "a", absl::Seconds(9)));
  EXPECT_FALSE(out.Holds(7, "a", absl::Seconds(10)));
  EXPECT_FALSE(out.Holds(7, "c", absl::Seconds(1)));
  EXPECT_TRUE(out.HoldsAny(7, absl::Seconds(19)));
  EXPECT_FALSE(out.HoldsAny(7, absl::Seconds(20)));
  EXPECT_FALSE(out.HoldsAny(8, absl::Seconds(1)));
  for (Ipv4 i = 0; i < 10'000; ++i) out.Add(100 + i, "x", absl::Seconds(100 + i));
  EXPECT_LE(out.size(), 4096u);
  EXPECT_TRUE(out.HoldsAny(100 + 9'999, absl::Seconds(50)));
}

TEST(Events, RepeatsAreFoldedAndTheOldestGo) {
  EventLog log;
  const absl::Time at = absl::FromUnixSeconds(1000);
  log.Note({false, "dns", "udp", "", 53, "a.b"}, at);
  for (int i = 0; i < 1000; ++i)
    log.Note({false, "dns", "udp", "", 53, "n" + std::to_string(i)}, at + absl::Seconds(i));
  log.Note({true, "dns", "udp", "", 53, "n999"}, at);
  log.Note({false, "dns", "udp", "", 53, "n990"}, at + absl::Hours(1));
  const v1::GuardReport report = log.Report();
  ASSERT_EQ(report.events_size(), static_cast<int>(EventLog::kMaxEvents));
  EXPECT_EQ(report.events(0).name(), "n990");
  EXPECT_EQ(report.events(0).count(), 2u);
  EXPECT_EQ(report.events(0).at_unix_ms(), absl::ToUnixMillis(at + absl::Hours(1)));
  EXPECT_TRUE(report.events(1).allowed());
}

TEST(RuleEvents, AreReadFromWhatNftPrints) {
  const std::string json = R"({"nftables": [{"metainfo": {}}, {"chain": {"name": "input"}},
    {"set": {"name": "refused", "elem": [{"elem": {"val": {"concat": ["1.2.3.4", "udp", 443]},
      "timeout": 600, "expires": 590, "counter": {"packets": 3, "bytes": 99}}}]}},
    {"set": {"name": "refused_other", "elem": [{"elem": {"val": {"concat": ["1.2.3.4", "icmp"]},
      "timeout": 600, "expires": 600, "counter": {"packets": 1, "bytes": 99}}}, 7]}},
    {"set": {"name": "closed", "elem": ["9.9.9.9"]}}]})";
  const absl::Time now = absl::FromUnixSeconds(1000);
  const auto seen = ReadRules(json, now);
  ASSERT_TRUE(seen.ok()) << seen.status();
  ASSERT_EQ(seen->events.size(), 2u);
  EXPECT_EQ(seen->events[0].dst(), "1.2.3.4");
  EXPECT_EQ(seen->events[0].proto(), "udp");
  EXPECT_EQ(seen->events[0].port(), 443u);
  EXPECT_EQ(seen->events[0].count(), 3u);
  EXPECT_EQ(seen->events[0].at_unix_ms(), 990'000);
  EXPECT_EQ(seen->events[1].proto(), "icmp");
  EXPECT_EQ(seen->text.find("1.2.3.4"), std::string::npos);
  EXPECT_NE(seen->text.find("9.9.9.9"), std::string::npos);
  EXPECT_FALSE(ReadRules("{", now).ok());
}

}  // namespace
}  // namespace bunker::agent
