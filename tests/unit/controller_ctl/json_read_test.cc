#include "controller/ctl/json_read.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

TEST(JsonReadTest, BytesThatAreNoTextAreNamed) {
  EXPECT_EQ(NotUtf8At({{"stdin", "gr\xC3\xBC\xC3\x9F"}, {"timeout_s", 60}, {"x", nullptr}}), "");
  EXPECT_EQ(NotUtf8At({{"stdin", "\x1f\x8b\x08"}}), "stdin");
  EXPECT_EQ(NotUtf8At({{"command", Json::array({"echo", "a", "\xff"})}}), "command[2]");
  EXPECT_EQ(NotUtf8At({{"env", {{"A", "b"}, {"C", "\xc0\x80"}}}}), "env.C");
  EXPECT_EQ(NotUtf8At({{"env", {{"K\xfe", "b"}}}}), "env.K\xEF\xBF\xBD");
  EXPECT_EQ(NotUtf8At({{"a", Json::array({Json{{"b", "\xed\xa0\x80"}}})}}), "a[0].b");
}

}  // namespace
}  // namespace bunker::ctl
