#include "agent/net/name_set.h"

#include <gtest/gtest.h>

#include "agent/net/worker_registries.h"

namespace bunker::agent {
namespace {

TEST(Names, AreMadeCanonicalOrRefused) {
  EXPECT_EQ(CanonicalName("Example.COM."), "example.com");
  EXPECT_EQ(CanonicalName("_dmarc.x-1.y"), "_dmarc.x-1.y");
  for (const std::string& bad :
       {std::string(), std::string("."), std::string("a..b"), std::string(".a"), std::string("a b"),
        std::string("a\0b", 3), std::string(64, 'a') + ".b", std::string("h\xc3\xa4.b"),
        std::string(254, 'a'), std::string("a/b"), std::string("a:80")}) {
    EXPECT_EQ(CanonicalName(bad), "") << bad;
  }
}

TEST(Names, AWildcardAllowsWhatIsBelowAndNothingElse) {
  const NameSet names({"exact.example", "*.x.y", "**.z.z", "a.*.b", "*"});
  for (const char* good : {"exact.example", "a.x.y", "b.a.x.y"}) EXPECT_TRUE(names.Allows(good));
  for (const char* bad : {"x.y", "below.exact.example", "notx.y", "a.x.y.z", "exactexample", "z.z",
                          "q.z.z", "y", ""}) {
    EXPECT_FALSE(names.Allows(bad)) << bad;
  }
}

TEST(WorkersOwnRegistries, AreTheHostsOfUrls) {
  EXPECT_EQ(HostsInText("deb [signed-by=/x] http://Mirror.example/debian bookworm main\n"
                        "URIs: https://user:secret@second.example:8443/x file:///srv ftp://no.no\n"
                        "index-url=https://pypi.lan/simple https:// http://[::1]/ x"),
            (std::vector<std::string>{"mirror.example", "pypi.lan", "second.example"}));
}

}  // namespace
}  // namespace bunker::agent
