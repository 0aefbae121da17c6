#include "agent/net/transit_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

using testing::HasSubstr;
using testing::Not;

TransitCard Card() {
  return {"br-lab", true, "02:00:5E:10:00:01", "192.0.2.5/24"};
}

std::string ErrorOf(const TransitCard& card) {
  return std::string(ParseCards({card}).status().message());
}

TEST(TransitRules, ACardIsUnderstoodOrRefused) {
  const auto rules = ParseCards({Card()});
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(rules->front().mac, "02:00:5e:10:00:01");
  EXPECT_EQ(rules->front().address, Ipv4{0xc0000205});
  EXPECT_TRUE(rules->front().guarded);
  for (const char* mac : {"", "02:00:5e:10:00", "02:00:5e:10:00:0g", "02-00-5e-10-00-01",
                          "03:00:5e:10:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00",
                          "02:00:5e:10:00:01\n", "02:00:5e:10:00:011"}) {
    TransitCard card = Card();
    card.mac = mac;
    EXPECT_THAT(ErrorOf(card), HasSubstr("mac")) << mac;
  }
  TransitCard card = Card();
  card.ipv4 = "192.0.2.5; accept";
  EXPECT_THAT(ErrorOf(card), HasSubstr("ipv4"));
  card = Card();
  card.bridge = "br-lab; drop";
  EXPECT_THAT(ErrorOf(card), HasSubstr("bridge"));
  EXPECT_FALSE(ParseCards(std::vector<TransitCard>(9, Card())).ok());
}

TEST(TransitRules, NamesFitWhatLinuxAllows) {
  for (const char* name : {"br0", "br-lab.7", "Br_1", "123456789012345"})
    EXPECT_TRUE(IsDeviceName(name)) << name;
  for (const char* name : {"", ".", "..", "a/b", "a b", "1234567890123456", "a\n", "a\"b"})
    EXPECT_FALSE(IsDeviceName(name)) << name;
  EXPECT_EQ(TransitHostName(4'000'000'000u, 7), "bkt4000000000h");
  EXPECT_TRUE(IsDeviceName(TransitHostName(4'000'000'000u, 7)));
}

constexpr char kChains[] = R"(  chain from_card0 {
    ether saddr != 02:00:5e:10:00:01 goto other_mac
    ether type arp goto arp_of_card0
    ether type != ip goto other_type
    ip saddr != 192.0.2.5 goto other_source
    udp sport 67 goto dhcp_server
    accept
  }
  chain arp_of_card0 {
    arp htype 1 arp ptype ip arp hlen 6 arp plen 4)"
                            R"( arp saddr ether 02:00:5e:10:00:01 arp saddr ip 192.0.2.5 accept
    goto other_arp
  }
  chain to_card0 {
    ether daddr != 02:00:5e:10:00:01 ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 drop
    ether type { ip, arp } accept
    drop
  }
  chain from_card1 {
    ether saddr != 02:00:5e:10:00:02 goto other_mac
    ether type arp goto arp_of_card1
    ether type != ip goto other_type
    goto other_source
  }
  chain arp_of_card1 {
    goto other_arp
  }
  chain to_card1 {
    ether daddr != 02:00:5e:10:00:02 ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 drop
    ether type { ip, arp } accept
    drop
  }
  chain from_card2 {
    accept
  }
  chain to_card2 {
    accept
  }
  chain pass {
    type filter hook prerouting priority -300; policy drop;
    iifname "tap0" goto from_card0
    iifname "port0" goto to_card0
    iifname "tap1" goto from_card1
    iifname "port1" goto to_card1
    iifname "tap2" goto from_card2
    iifname "port2" goto to_card2
  }
  chain here {
    type filter hook input priority 0; policy drop;
  }
  chain own {
    type filter hook output priority 0; policy drop;
  }
}
)";

TEST(TransitRules, TheRulesOfEachKindOfCard) {
  const std::vector<CardRules> cards = {
      {true, "02:00:5e:10:00:01", *ParseIpv4("192.0.2.5")},
      {true, "02:00:5e:10:00:02", std::nullopt},
      {false, "02:00:5e:10:00:03", *ParseIpv4("192.0.2.7")}};
  const std::string text = TransitRuleset(cards, /*is_first=*/false);
  const size_t at = text.find("  chain from_card0 {");
  ASSERT_NE(at, std::string::npos);
  EXPECT_EQ(text.substr(at), kChains);
  EXPECT_THAT(text, Not(HasSubstr("$")));
  // A set that is full breaks off its rule: the drop must not be a part of it.
  for (const char* chain :
       {"other_mac", "other_arp", "other_source", "other_type", "dhcp_server"}) {
    const size_t begin = text.find("chain " + std::string(chain) + " {");
    ASSERT_NE(begin, std::string::npos) << chain;
    EXPECT_THAT(text.substr(begin, text.find("\n  }", begin) - begin), HasSubstr("}\n    drop"));
  }
}

}  // namespace
}  // namespace bunker::agent
