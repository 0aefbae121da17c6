// GET /images with a body, as clients of Unikraft Cloud look images up.
#include <string>

#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

class UnikraftTest : public GatewayFixture {
 protected:
  Answer LookUp(const std::string& body, const std::string& key = "") {
    return Raw("GET", std::string(kModule) + "/images",
               "Authorization: Bearer " + (key.empty() ? key_ : key) +
                   "\r\nContent-Type: application/json\r\n",
               body);
  }
};

TEST_F(UnikraftTest, FindsByDigestAndByTag) {
  const std::string user = AddUser("u", Role::kTenantUser);
  const std::string stranger = AddUser("s", Role::kTenantAdmin, AddTenant("other"));
  Boot();
  const std::string worker = JoinWorker("w1");
  const Answer made = Call("POST", "/images", R"({"name": "r", "size_mib": 64, "build_source":
                                     {"kind": "oci", "ref": "docker.io/r-base:4.4"}})");
  const std::string id = made.data()["id"];
  Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
  Call("POST", "/availability-groups/g/images", R"({"ref": "r"})");
  FinishBake(worker, id);
  Call("POST", "/images", R"({"name": "bare", "size_mib": 64, "build_source":
                           {"kind": "oci", "ref": "reg.example:5000/user/image:tag"}})");

  const std::string digest = "sha256:" + std::string(64, 'a');
  for (const std::string& body :
       {R"({"digest": "docker.io/library/r-base@)" + digest + "\"}",
        R"({"digest": ")" + digest + "\"}", std::string(R"({"tag": "r-base:4.4"})"),
        std::string(R"({"tag": "docker.io/r-base:4.4"})")}) {
    const Answer found = LookUp(body);
    ASSERT_EQ(found.status, 200) << found.body;
    ASSERT_EQ(found.data().size(), 1u) << body;
    const Json& row = found.data()[0];
    EXPECT_EQ(row["id"], id);
    EXPECT_EQ(row["url"], "docker.io/library/r-base@" + digest);
    EXPECT_EQ(row["tags"], Json::array({"r-base:4.4"}));
    EXPECT_EQ(row["initrd_or_rom"], false);
    EXPECT_EQ(row["size_in_bytes"], 5000);
    EXPECT_EQ(row["args"], Json::array({"/bin/bash"}));
    EXPECT_EQ(row["env"]["LANG"], "C.UTF-8");
    // The admin of the platform alone sees whose it is and who may see it.
    EXPECT_TRUE(row.contains("owner"));
    EXPECT_EQ(row["users"].size(), 2u);
  }
  const Answer bare = LookUp(R"({"tag": "user/image:tag"})", user);
  ASSERT_EQ(bare.data().size(), 1u) << bare.body;
  for (const char* absent : {"args", "env", "owner", "users"})
    EXPECT_FALSE(bare.data()[0].contains(absent)) << absent;
  EXPECT_EQ(bare.data()[0]["tags"], Json::array({"user/image:tag"}));
  EXPECT_EQ(LookUp(R"({"tag": "user/image:tag"})", stranger).data().size(), 0u);
}

TEST_F(UnikraftTest, NoMatchIsAnEmptyListAndNonsenseIsRefused) {
  Boot();
  for (const char* body : {R"({"tag": "no/such:tag"})", R"({"digest": "x@sha256:000000000000"})",
                           R"({"digest": "junk"})", R"({"tag": "name"})"}) {
    const Answer none = LookUp(body);
    EXPECT_EQ(none.status, 200) << none.body;
    EXPECT_EQ(none.data(), Json::array()) << body;
    EXPECT_EQ(none.json["has_more"], false);
  }
  for (const char* body : {"{}", "[]", "x", R"({"tag": 1})", R"({"tag": ""})", R"({"name": "x"})",
                           R"({"tag": "a", "digest": "b"})"}) {
    const Answer wrong = LookUp(body);
    EXPECT_EQ(wrong.code(), "VALIDATION_ERROR") << body;
    EXPECT_EQ(wrong.status, 422);
  }
  EXPECT_EQ(Raw("GET", std::string(kModule) + "/images",
                AuthHeader() + "Content-Type: text/plain\r\n", "x")
                .status,
            415);
  EXPECT_EQ(Raw("GET", std::string(kModule) + "/images", "Content-Type: application/json\r\n",
                R"({"tag": "a:b"})")
                .code(),
            "AUTH_TOKEN_MISSING");
}

}  // namespace
}  // namespace bunker::controller
