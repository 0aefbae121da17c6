// Who a command runs as: the image's users, read by our own parser.
#include "agent/guest/users.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bunker::guest {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/bash\n"
    "# comment:x:7:7::/:\n"
    "broken line\n"
    "short:x:8:8\n"
    "bad:x:abc:9::/:/bin/sh\n"
    "minus:x:-1:9::/:/bin/sh\n"
    "wrap:x:4294967296:9::/:/bin/sh\n"
    ":x:10:10::/:/bin/sh\n"
    "app:x:1000:1000:App,,,:/home/app:/bin/sh\n"
    "app:x:1:1::/second:/bin/sh\n"
    "toor:x:0:5::/toor:/bin/sh\n"
    "zero:x:0000:0::/:/bin/sh\n"
    "1234:x:77:78::/digits:/bin/sh\n"
    "nohome:x:90:90:::\n"
    "last:x:91:91::/last:/bin/sh";  // no newline
constexpr char kGroup[] =
    "root:x:0:\n"
    "adm:x:4:app,root\n"
    "app:x:1000:app\n"
    "video:x:44:someone,app\n"
    "bad:x:x:app\n"
    "short:x:99\n"
    "5555:x:56:\n";

class UsersTest : public testing::Test {
 protected:
  // uid:gid:groups:home, or the error.
  std::string Resolve(std::string_view spec) {
    Identity who;
    if (Error error = db_.Resolve(spec, &who); !error.ok()) return "error";
    std::string text = std::to_string(who.uid) + ":" + std::to_string(who.gid) + ":";
    for (const gid_t gid : who.groups) text += std::to_string(gid) + ",";
    return text + ":" + who.home;
  }
  UserDb db_ = UserDb::Parse(kPasswd, kGroup);
};

TEST_F(UsersTest, NamesAndNumbers) {
  EXPECT_EQ(Resolve("root"), "0:0:4,:/root");
  EXPECT_EQ(Resolve("app"), "1000:1000:4,44,:/home/app") << "the first entry wins";
  EXPECT_EQ(Resolve("1000"), Resolve("app"));
  EXPECT_EQ(Resolve("0001000"), Resolve("app"));
  EXPECT_EQ(Resolve("toor"), "0:5::/toor");
  EXPECT_EQ(Resolve("zero"), "0:0::/");
  EXPECT_EQ(Resolve("1234"), "77:78::/digits") << "a name first, even one of digits";
  EXPECT_EQ(Resolve("4242"), "4242:0::/") << "unknown uids have gid 0, as in containers";
  EXPECT_EQ(Resolve("nohome"), "90:90::/");
  EXPECT_EQ(Resolve("last"), "91:91::/last");
}

TEST_F(UsersTest, AnExplicitGroupIsTheOnlyOne) {
  EXPECT_EQ(Resolve("app:video"), "1000:44::/home/app");
  EXPECT_EQ(Resolve("app:0"), "1000:0::/home/app");
  EXPECT_EQ(Resolve("1:2"), "1:2::/second") << "uid 1 has an entry";
  EXPECT_EQ(Resolve("app:5555"), "1000:56::/home/app") << "a group's name of digits";
  EXPECT_EQ(Resolve("app:777"), "1000:777::/home/app");
}

TEST_F(UsersTest, NonsenseIsRefused) {
  for (const char* spec :
       {"",      ":",    "app:",  ":app",        "nobody-here", "app:nogroup", "-1",          "+1",
        " 1",    "1 ",   "0x1",   "1e3",         "4294967295",  "4294967296",  "99999999999", "bad",
        "minus", "wrap", "short", "app:app:app", "# comment"}) {
    EXPECT_EQ(Resolve(spec), "error") << "\"" << spec << "\"";
  }
}

TEST_F(UsersTest, NoFilesAtAll) {
  const UserDb none = UserDb::Parse("", "");
  Identity who;
  EXPECT_TRUE(none.Resolve("0", &who).ok());
  EXPECT_EQ(who.uid, 0u);
  EXPECT_THAT(who.groups, IsEmpty());
  EXPECT_FALSE(none.Resolve("root", &who).ok());
}

}  // namespace
}  // namespace bunker::guest
