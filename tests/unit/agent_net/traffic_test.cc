#include "agent/net/traffic.h"

#include <gtest/gtest.h>

namespace bunker::agent {
namespace {

TEST(Traffic, TapsAloneAreCountedAndFromTheGuestsSide) {
  const char* const devices =
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n"
      "    lo:     100       1    0    0    0     0          0         0      100       1    0\n"
      "  tap0: 5000000000  42    0    0    0     0          0         0      700       3    0\n"
      "  tap1:      30       1    0    0    0     0          0         0       40       1    0\n"
      " port0:     999       1    0    0    0     0          0         0      999       1    0\n"
      "  tap2: nonsense\n";
  EXPECT_EQ(ParseTraffic(devices), (Traffic{740, 5'000'000'030}));
  EXPECT_EQ(ParseTraffic(""), Traffic());
}

}  // namespace
}  // namespace bunker::agent
