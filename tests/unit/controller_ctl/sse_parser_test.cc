#include "controller/ctl/sse_parser.h"

#include "gtest/gtest.h"

namespace bunker::ctl {
namespace {

constexpr char kStream[] =
    ": hello\n"
    "id: 7\nevent: row\ndata: {\"a\":1,\ndata: \"b\":2}\n\n"
    "data:bare\r\n\r\n"
    "event: nothing\n\n"
    "event: synced\ndata: {}\n\n";

void ExpectEvents(const std::vector<SseEvent>& events) {
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].id, "7");
  EXPECT_EQ(events[0].event, "row");
  EXPECT_EQ(events[0].data, "{\"a\":1,\n\"b\":2}");
  EXPECT_EQ(events[1].event, "message");
  EXPECT_EQ(events[1].data, "bare");
  EXPECT_EQ(events[2].event, "synced");
}

TEST(SseParserTest, WholeStreamAtOnce) {
  SseParser parser;
  std::vector<SseEvent> events;
  ASSERT_TRUE(parser.Feed(kStream, &events).ok());
  ExpectEvents(events);
}

TEST(SseParserTest, ByteByByteIsTheSame) {
  SseParser parser;
  std::vector<SseEvent> events;
  for (const char c : std::string(kStream)) ASSERT_TRUE(parser.Feed({&c, 1}, &events).ok());
  ExpectEvents(events);
}

TEST(SseParserTest, AnEndlessEventIsRefused) {
  SseParser parser;
  std::vector<SseEvent> events;
  const std::string piece(1U << 19, 'x');
  EXPECT_TRUE(parser.Feed("data: " + piece, &events).ok());
  EXPECT_FALSE(parser.Feed(piece, &events).ok());
}

}  // namespace
}  // namespace bunker::ctl
