// URLs, the address filter and the choice of a proxy: tables.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/http/address_filter.h"
#include "common/http/proxy.h"
#include "common/http/url.h"

namespace bunker::http {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

TEST(UrlTest, ParsesAndNormalises) {
  const auto url = ParseUrl("HTTPS://Example.ORG/a?b=c#d");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->HostPort(), "example.org:443");
  EXPECT_THAT(url->text, HasSubstr("/a?b=c"));
  EXPECT_EQ(url->text.find('#'), std::string::npos);
  EXPECT_EQ(ParseUrl("http://[::1]:5000/")->BareHost(), "::1");
  EXPECT_EQ(ParseUrl("http://x")->port, 80);
}

TEST(UrlTest, Refuses) {
  for (const std::string text :
       {"", "x", "/path", "file:///etc/passwd", "ftp://x/", "gopher://x/", "http://",
        "http://user@x/", "http://user:pw@x/", "http://x:99999/", "http://a b/"})
    EXPECT_FALSE(ParseUrl(text).ok()) << text;
  EXPECT_FALSE(ParseUrl("http://x/" + std::string(20'000, 'a')).ok());
  EXPECT_FALSE(ParseUrl(std::string("http://x/\0y", 11)).ok());
}

TEST(UrlTest, ResolvesRedirects) {
  const Url base = *ParseUrl("https://a.example/v2/x/blobs/1?q");
  EXPECT_EQ(ResolveUrl(base, "/other")->text, "https://a.example/other");
  EXPECT_EQ(ResolveUrl(base, "../y")->text, "https://a.example/v2/x/y");
  EXPECT_EQ(ResolveUrl(base, "//b.example/z")->HostPort(), "b.example:443");
  EXPECT_EQ(ResolveUrl(base, "http://b.example")->scheme, "http");
  EXPECT_FALSE(ResolveUrl(base, "file:///etc/passwd").ok());
  EXPECT_FALSE(ResolveUrl(base, "https://user:pw@b.example/").ok());
}

TEST(UrlTest, RepeatsNoSecrets) {
  for (const std::string text : {"https://ada:canary@b.example/x", "https://b example/?sig=canary",
                                 "https://ada:can?ary@b.example/canary"})
    EXPECT_THAT(std::string(ParseUrl(text).status().message()), Not(HasSubstr("canary"))) << text;
}

TEST(UrlTest, TellsOriginsApart) {
  const Url base = *ParseUrl("https://a.example/x");
  EXPECT_TRUE(SameOrigin(base, *ParseUrl("https://A.example:443/y")));
  EXPECT_FALSE(SameOrigin(base, *ParseUrl("https://a.example:444/x")));
  EXPECT_FALSE(SameOrigin(base, *ParseUrl("http://a.example/x")));
  EXPECT_FALSE(SameOrigin(base, *ParseUrl("https://b.a.example/x")));
}

TEST(UrlTest, Encodes) {
  EXPECT_EQ(PercentEncode("a:b/c d~"), "a%3Ab%2Fc%20d~");
}

TEST(AddressFilterTest, RefusesWhatIsNear) {
  const std::pair<const char*, const char*> table[] = {
      {"127.0.0.1", "loopback"},
      {"127.255.255.254", "loopback"},
      {"localhost", "loopback"},
      {"localhost.", "loopback"},
      {"a.b.localhost", "loopback"},
      {"metadata.google.internal", "metadata"},
      {"metadata.google.internal.", "metadata"},
      {"0.0.0.0", "unspecified"},
      {"0.1.2.3", "unspecified"},
      {"169.254.0.1", "link-local"},
      {"169.254.169.254", "metadata"},
      {"100.100.100.200", "metadata"},
      {"168.63.129.16", "metadata"},
      {"224.0.0.1", "multicast"},
      {"255.255.255.255", "broadcast"},
      {"::1", "loopback"},
      {"::", "unspecified"},
      {"fe80::1", "link-local"},
      {"febf::1", "link-local"},
      {"ff02::1", "multicast"},
      {"fd00:ec2::254", "metadata"},
      {"::ffff:127.0.0.1", "loopback"},
      {"::ffff:169.254.169.254", "metadata"},
      {"::127.0.0.1", "loopback"},
      {"64:ff9b::7f00:1", "loopback"},
      {"64:ff9b::a9fe:a9fe", "metadata"},
      {"2002:7f00:1::", "loopback"},
      {"2002:a9fe:a9fe::1", "metadata"},
      {"fd20:ce::254", "metadata"},
      {"::ffff:0:127.0.0.1", "loopback"},
      {"64:ff9b:1::7f00:1", "loopback"},
      {"2001:0:1:2:3:4:80ff:fffe", "loopback"},
      {"2001:0:1:2:3:4:5601:5601", "metadata"},
  };
  for (const auto& [host, words] : table)
    EXPECT_THAT(RefusalOfHost(host), HasSubstr(words)) << host;
}

TEST(AddressFilterTest, LetsTheRestThrough) {
  for (const char* host :
       {"192.0.2.1", "10.1.2.3", "172.16.0.1", "192.168.99.1", "2001:db8::1", "fd12:3456::1",
        "64:ff9b::c000:201", "registry.example", "128.0.0.1", "169.253.255.255", "169.255.0.0",
        "fec0::1", "notlocalhost", "localhost.example"})
    EXPECT_EQ(RefusalOfHost(host), "") << host;
}

TEST(AddressFilterTest, RefusesOtherFamilies) {
  sockaddr unix_address{};
  unix_address.sa_family = AF_UNIX;
  EXPECT_EQ(RefusalOf(&unix_address), "not an IP address");
}

TEST(ProxyTest, FollowsTheScheme) {
  const ProxyConfig config{.http = "http://p:1", .https = "http://p:2", .no_proxy = ""};
  EXPECT_EQ(ProxyFor(config, *ParseUrl("http://a.example/")), "http://p:1");
  EXPECT_EQ(ProxyFor(config, *ParseUrl("https://a.example/")), "http://p:2");
  EXPECT_EQ(ProxyFor({}, *ParseUrl("https://a.example/")), "");
}

TEST(ProxyTest, LeavesOutWhatItIsTold) {
  struct Row {
    const char *no_proxy, *url;
    bool proxied;
  };
  const Row table[] = {
      {"", "https://127.0.0.1:5000/", false},
      {"", "https://localhost/", false},
      {"", "https://[::1]/", false},
      {"*", "https://a.example/", false},
      {"a.example", "https://a.example/", false},
      {"A.Example", "https://a.example/", false},
      {"a.example", "https://b.a.example/", false},
      {".a.example", "https://b.a.example/", false},
      {"*.a.example", "https://b.a.example/", false},
      {"a.example", "https://ba.example/", true},
      {"x, a.example", "https://a.example/", false},
      {"a.example:443", "https://a.example/", false},
      {"a.example:444", "https://a.example/", true},
      {"10.0.0.0/8", "https://10.9.8.7/", false},
      {"10.0.0.0/8", "https://11.0.0.1/", true},
      {"10.0.0.0/9", "https://10.128.0.1/", true},
      {"10.0.0.0/x", "https://10.0.0.1/", true},
      {"10.0.0.0/33", "https://10.0.0.0/", true},
      {"10.1.2.3", "https://10.1.2.3/", false},
      {"1.2.3", "https://0.1.2.3/", true},
      {"fd00::/8", "https://[fd00::1]/", false},
      {",, ,", "https://a.example/", true},
  };
  for (const Row& row : table) {
    const ProxyConfig config{.http = "p", .https = "p", .no_proxy = row.no_proxy};
    EXPECT_EQ(ProxyFor(config, *ParseUrl(row.url)), row.proxied ? "p" : "")
        << row.no_proxy << " " << row.url;
  }
}

}  // namespace
}  // namespace bunker::http
