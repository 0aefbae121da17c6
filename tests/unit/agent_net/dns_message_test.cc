#include "agent/net/dns_message.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

using std::string_literals::operator""s;

std::string Named(std::string_view name) {
  const std::string query = BuildDnsQuery(0, name);
  return query.substr(12, query.size() - 16);
}

std::string Record(const std::string& owner, char type, const std::string& data, char ttl) {
  return owner + "\0"s + type + "\0\1\0\0\0"s + ttl + "\0"s + static_cast<char>(data.size()) + data;
}

std::string Reply(uint16_t id, std::string_view name, const std::vector<std::string>& records) {
  std::string reply = BuildDnsQuery(id, name);
  reply[2] = static_cast<char>(0x81);
  reply[7] = static_cast<char>(records.size());
  for (const std::string& record : records) reply += record;
  return reply;
}

TEST(DnsQuery, IsReadAndAnswered) {
  const auto question = ParseDnsQuery(BuildDnsQuery(0x1234, "a.example"));
  ASSERT_TRUE(question.ok()) << question.status();
  EXPECT_EQ(question->id, 0x1234);
  EXPECT_EQ(question->name, "a.example");
  EXPECT_EQ(question->type, kDnsTypeA);
  const std::string answer = BuildDnsAnswer(*question, kDnsNoError, {{0x01020304, 60}});
  const auto reply = ParseDnsReply(answer, 0x1234, "a.example");
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->addresses.size(), 1u);
  EXPECT_EQ(reply->addresses[0].address, 0x01020304u);
  EXPECT_EQ(reply->addresses[0].ttl_s, 60u);
}

TEST(DnsQuery, OddOnesAreNoQuestions) {
  const std::string good = BuildDnsQuery(1, "a.example");
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_FALSE(ParseDnsQuery(good.substr(0, cut)).ok()) << cut;
  std::string response = good;
  response[2] = static_cast<char>(0x80);
  EXPECT_FALSE(ParseDnsQuery(response).ok());
  std::string two = good;
  two[5] = 2;
  EXPECT_FALSE(ParseDnsQuery(two).ok());
  std::string pointer = good.substr(0, 12) + "\xc0\x0c\0\1\0\1"s;
  EXPECT_FALSE(ParseDnsQuery(pointer).ok());
  // A dot inside a label would make another name of it.
  std::string dotted = good.substr(0, 12) + "\x09"s + "a.example"s + "\0\0\1\0\1"s;
  EXPECT_FALSE(ParseDnsQuery(dotted).ok());
  std::string spaced = good.substr(0, 12) + "\x03"s + "a b"s + "\0\0\1\0\1"s;
  ASSERT_TRUE(ParseDnsQuery(spaced).ok());
  EXPECT_EQ(ParseDnsQuery(spaced)->name, "");
}

TEST(DnsReply, AliasesAreFollowedFromTheNameAndNothingElseCounts) {
  const std::string reply = Reply(7, "a.example",
                                  {Record(Named("a.example"), 5, Named("b.example"), 9),
                                   Record(Named("b.example"), 1, "\1\1\1\1", 20),
                                   Record(Named("other.example"), 1, "\2\2\2\2", 20)});
  const auto read = ParseDnsReply(reply, 7, "a.example");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->addresses.size(), 1u);
  EXPECT_EQ(read->addresses[0].address, 0x01010101u);
  EXPECT_EQ(read->addresses[0].ttl_s, 9u);
  EXPECT_FALSE(ParseDnsReply(reply, 8, "a.example").ok());
  EXPECT_FALSE(ParseDnsReply(reply, 7, "b.example").ok());
}

TEST(DnsReply, LoopsEnd) {
  const std::string alias = Reply(7, "a.example",
                                  {Record(Named("a.example"), 5, Named("b.example"), 9),
                                   Record(Named("b.example"), 5, Named("a.example"), 9)});
  const auto read = ParseDnsReply(alias, 7, "a.example");
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(read->addresses.empty());
  const std::string self = Reply(7, "a.example", {"\xc0\x1b"s + "\0\1\0\1\0\0\0\1\0\4\1\1\1\1"s});
  EXPECT_TRUE(ParseDnsReply(self, 7, "a.example")->addresses.empty());
}

TEST(DnsReply, ManyAddressesAreBounded) {
  std::vector<std::string> records(100, Record(Named("a.example"), 1, "\1\1\1\1", 20));
  EXPECT_EQ(ParseDnsReply(Reply(7, "a.example", records), 7, "a.example")->addresses.size(), 32u);
}

}  // namespace
}  // namespace bunker::agent
