#include "controller/ctl/format.h"

#include "gtest/gtest.h"

namespace bunker::ctl {
namespace {

TEST(FormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(71074816), "67.8 MiB");
  EXPECT_EQ(FormatBytes(5ULL << 40), "5.0 TiB");
  EXPECT_EQ(FormatBytes(5ULL << 50), "5120.0 TiB");
}

TEST(FormatTest, Durations) {
  EXPECT_EQ(FormatSeconds(0.2), "1 s");
  EXPECT_EQ(FormatSeconds(65), "1 m 05 s");
  EXPECT_EQ(FormatSeconds(3720), "1 h 02 m");
  EXPECT_EQ(FormatSeconds(-1), "-");
  EXPECT_EQ(FormatMilliseconds(41.24), "41.2 ms");
  EXPECT_EQ(FormatMilliseconds(1482), "1.482 s");
}

TEST(FormatTest, TableAlignsAndFills) {
  EXPECT_EQ(FormatTable({"NAME", "STATUS"}, {{"a-long-name", "ready"}, {"b"}}),
            "NAME         STATUS\n"
            "a-long-name  ready\n"
            "b            -\n");
}

TEST(FormatTest, TableCountsCodePointsAndDisarmsEscapes) {
  EXPECT_EQ(FormatTable({"A", "B"}, {{"\xc3\xa9\xc3\xa9", "x\x1b[2J"}}),
            "A   B\n\xc3\xa9\xc3\xa9  x?[2J\n");
}

TEST(FormatTest, NothingThatATerminalObeysIsPrinted) {
  EXPECT_EQ(Printable("a\x1b[31m\n\tb\x7f"), "a?[31m??b?");
  EXPECT_EQ(PrintableLines("a\nb\r"), "a\nb?");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "2J"),
            "?2J");  // CSI as one character
  EXPECT_EQ(Printable("\xe2\x80\xae"
                      "txt.exe"),
            "?txt.exe");  // writes from right to left
  EXPECT_EQ(Printable("\xe2\x81\xa6\xc3\xa9\xf0\x9f\x98\x80"), "?\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(Printable("\xff"), "\xef\xbf\xbd");
}

TEST(FormatTest, Ages) {
  EXPECT_EQ(FormatAge(0.5), "now");
  EXPECT_EQ(FormatAge(45.9), "45 seconds ago");
  EXPECT_EQ(FormatAge(61), "1 minute ago");
  EXPECT_EQ(FormatAge(90000), "1 day ago");
}

}  // namespace
}  // namespace bunker::ctl
