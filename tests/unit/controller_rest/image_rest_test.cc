// Images over REST beyond the seed's way: every field of the row, PATCH, filters and spellings.
#include <set>
#include <string>
#include <vector>

#include "common/base/id.h"
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

using ImageRestTest = GatewayFixture;

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string Registration(const std::string& name, const std::string& more = "",
                         const std::string& ref = "docker.io/r-base:4.4") {
  return R"({"name": ")" + name + R"(", "build_source": {"kind": "oci", "ref": ")" + ref +
         R"("}, "size_mib": 64)" + more + "}";
}

// "/" and ":" as a path's segment takes them.
std::string Quoted(const std::string& ref) {
  std::string out;
  for (const char c : ref) {
    if (c == '/')
      out += "%2F";
    else if (c == ':')
      out += "%3A";
    else if (c == '@')
      out += "%40";
    else
      out += c;
  }
  return out;
}

TEST_F(ImageRestTest, TheRowHasEveryFieldOfTheContract) {
  Boot();
  const Answer made =
      Call("POST", "/images", Registration("full", R"(, "display_name": "D", "description": "d",
      "default_cpu_millicores": 2000, "default_memory_mb": 4096, "default_disk_mb": 8192,
      "lazy_pull": true, "preinstalled": ["R"], "resource_category": ["CPU", "GPU"])"));
  ASSERT_EQ(made.status, 201) << made.body;
  const std::set<std::string> contract = {"id",
                                          "uuid",
                                          "name",
                                          "display_name",
                                          "description",
                                          "build_source",
                                          "url",
                                          "resolved_digest",
                                          "rootfs_digest",
                                          "size_mib",
                                          "size_in_bytes",
                                          "default_cpu_millicores",
                                          "default_memory_mb",
                                          "default_disk_mb",
                                          "scope",
                                          "tenant_id",
                                          "owner",
                                          "lazy_pull",
                                          "preinstalled",
                                          "arch",
                                          "resource_category",
                                          "origin",
                                          "args",
                                          "env",
                                          "working_dir",
                                          "user",
                                          "exposed_ports",
                                          "tags",
                                          "tag_moved",
                                          "initrd_or_rom",
                                          "active",
                                          "scan_status",
                                          "scan_summary",
                                          "scanned_at",
                                          "cache_summary",
                                          "created_at",
                                          "updated_at"};
  for (const std::string& field : contract) EXPECT_EQ(made.data().count(field), 1u) << field;
  for (const char* unknown : {"url", "resolved_digest", "rootfs_digest", "size_in_bytes", "arch",
                              "tag_moved", "scanned_at", "working_dir", "user"})
    EXPECT_TRUE(made.data()[unknown].is_null()) << unknown << made.data()[unknown];
  EXPECT_EQ(made.data()["args"], Json::array());
  EXPECT_EQ(made.data()["env"], Json::object());
  EXPECT_EQ(made.data()["exposed_ports"], Json::array());
  EXPECT_EQ(made.data()["resource_category"], (Json{"CPU", "GPU"}));
  EXPECT_EQ(made.data()["origin"], "CUSTOMIZE");
  EXPECT_EQ(made.data()["tags"], Json::array({"docker.io/r-base:4.4"}));
  EXPECT_EQ(made.data()["initrd_or_rom"], false);

  const std::string worker = JoinWorker("w1");
  const std::string id = made.data()["id"];
  Call("POST", "/availability-groups", R"({"name": "g"})");
  Call("POST", "/availability-groups/g/images", R"({"ref": "full"})");
  Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
  FinishBake(worker, id);
  const Json row = Call("GET", "/images/full").data();
  EXPECT_EQ(row["url"], "docker.io/library/r-base@" + kDigest);
  EXPECT_EQ(row["resolved_digest"], kDigest);
  EXPECT_EQ(row["size_in_bytes"], 5000);
  EXPECT_EQ(row["arch"], "X86_64");
  EXPECT_EQ(row["args"], Json::array({"/bin/bash"}));
  EXPECT_EQ(row["env"]["LANG"], "C.UTF-8");
  EXPECT_EQ(row["working_dir"], "/");
  EXPECT_EQ(row["cache_summary"]["ready"], 1);
  for (const std::string& ref :
       {id, row["uuid"].get<std::string>(), std::string("full"), "full@" + kDigest.substr(0, 19),
        row["url"].get<std::string>(), "r-base@" + kDigest, std::string("docker.io/r-base:4.4"),
        std::string("r-base:4.4")}) {
    EXPECT_EQ(Call("GET", "/images/" + Quoted(ref)).data()["id"], id) << ref;
    EXPECT_EQ(Call("GET", "/images/" + Quoted(ref) + "/cache").data().size(), 1u) << ref;
  }
}

TEST_F(ImageRestTest, PatchChangesWhatMayChange) {
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("x", R"(, "preinstalled": ["R"])")).status, 201);
  const Answer changed = Call("PATCH", "/images/x", R"({"display_name": "D", "description": "d",
      "default_cpu_millicores": 500, "default_memory_mb": 128, "default_disk_mb": 256,
      "lazy_pull": true, "preinstalled": ["R", "Python"]})");
  ASSERT_EQ(changed.status, 200) << changed.body;
  const Json row = Call("GET", "/images/x").data();
  EXPECT_EQ(row, changed.data());
  EXPECT_EQ(row["display_name"], "D");
  EXPECT_EQ(row["default_memory_mb"], 128);
  EXPECT_EQ(row["lazy_pull"], true);
  EXPECT_EQ(row["preinstalled"], (Json{"R", "Python"}));
  EXPECT_GT(row["updated_at"], row["created_at"]);
  // What is left out stays; empty and null clear.
  const Json less =
      Call("PATCH", "/images/x", R"({"preinstalled": [], "description": null})").data();
  EXPECT_EQ(less["preinstalled"], Json::array());
  EXPECT_EQ(less["description"], "");
  EXPECT_EQ(less["display_name"], "D");
  EXPECT_EQ(less["lazy_pull"], true);
  EXPECT_EQ(Call("PATCH", "/images/x", "{}").data()["display_name"], "D");
}

TEST_F(ImageRestTest, AnyOtherFieldTakesANewName) {
  const std::string user = AddUser("user", Role::kTenantUser);
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("x")).status, 201);
  const std::vector<std::pair<std::string, std::string>> fields = {
      {"name", R"("y")"},
      {"size_mib", "128"},
      {"scope", R"("platform")"},
      {"arch", R"("AARCH64")"},
      {"build_source", R"({"kind": "oci", "ref": "a"})"},
      {"resource_category", "[]"},
      {"active", "false"},
      {"colour", "1"},
      {"image", R"("y")"},
      {"update_mask", R"("name")"}};
  for (const auto& [field, value] : fields) {
    const Answer answer = Call("PATCH", "/images/x", "{\"" + field + "\": " + value + "}");
    EXPECT_EQ(answer.status, 422) << answer.body;
    EXPECT_EQ(answer.code(), "VALIDATION_ERROR");
    EXPECT_EQ(answer.field(), field);
    EXPECT_NE(answer.message().find("register a new name"), std::string::npos) << answer.body;
  }
  for (const auto& [field, value] : std::vector<std::pair<std::string, std::string>>{
           {"default_memory_mb", "1"},
           {"default_memory_mb", "null"},
           {"lazy_pull", "null"},
           {"description", "\"" + std::string(513, 'd') + "\""},
           {"pull_secret", R"("none")"}}) {
    const Answer answer = Call("PATCH", "/images/x", "{\"" + field + "\": " + value + "}");
    EXPECT_EQ(answer.status, 422) << answer.body;
    EXPECT_EQ(answer.field(), field) << answer.body;
  }
  EXPECT_EQ(Call("PATCH", "/images/none", "{}").status, 404);
  EXPECT_EQ(Raw("PATCH", std::string(kModule) + "/images/x",
                "Authorization: Bearer " + user + "\r\nContent-Type: application/json\r\n", "{}")
                .code(),
            "AUTHZ_PERMISSION_DENIED");
}

TEST_F(ImageRestTest, Filters) {
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("one")).status, 201);
  ASSERT_EQ(Call("POST", "/images",
                 Registration("two", R"(, "scope": "platform")", "127.0.0.1:5000/team/two:2"))
                .status,
            201);
  ASSERT_EQ(Call("DELETE", "/images/one").status, 200);
  const Json one = Call("GET", "/images/one").data();
  const Json two = Call("GET", "/images/two").data();
  const auto names = [&](const std::string& query) {
    std::string all;
    const Answer answer = Call("GET", "/images?" + query);
    EXPECT_EQ(answer.status, 200) << answer.body;
    for (const Json& row : answer.data()) all += row["name"].get<std::string>() + " ";
    return all;
  };
  EXPECT_EQ(names("name=one"), "one ");
  EXPECT_EQ(names("scope=platform"), "two ");
  EXPECT_EQ(names("active=false"), "one ");
  EXPECT_EQ(names("active=true"), "two ");
  EXPECT_EQ(names("scan_status=pending"), "two one ");
  EXPECT_EQ(names("scan_status=passed"), "");
  EXPECT_EQ(names("tag=team/two:2"), "two ");
  EXPECT_EQ(names("tag=docker.io/library/r-base:4.4"), "one ");
  EXPECT_EQ(names("digest=" + kDigest), "");
  EXPECT_EQ(names("uuid=" + one["uuid"].get<std::string>()), "one ");
  EXPECT_EQ(
      names("uuid=" + one["uuid"].get<std::string>() + "," + two["id"].get<std::string>()),
      "two one ");
  EXPECT_EQ(names("uuid=01a1fe2e-7662-70b8-8a3d-ed6846cd2fc5"), "");
  for (const char* wrong : {"digest=abc", "digest=sha256:abc", "uuid=", "uuid=x", "uuid=a,,b",
                            "scope=galaxy", "active=yes", "scan_status=1", "colour=red"})
    EXPECT_EQ(Call("GET", std::string("/images?") + wrong).code(), "VALIDATION_ERROR") << wrong;
}

TEST_F(ImageRestTest, AReferenceThatFitsSeveralSaysSo) {
  Boot();
  ASSERT_EQ(Call("POST", "/images", Registration("one", "", "a.example/app:1")).status, 201);
  ASSERT_EQ(Call("POST", "/images", Registration("two", "", "b.example/app:1")).status, 201);
  const Answer answer = Call("GET", "/images/" + Quoted("app:1"));
  EXPECT_EQ(answer.status, 422) << answer.body;
  EXPECT_NE(answer.message().find("b.example/app:1"), std::string::npos);
  EXPECT_EQ(answer.field(), "image");
  EXPECT_EQ(Call("POST", "/bunkers", R"({"image": "app:1"})").status, 422);
  EXPECT_EQ(Call("GET", "/images/" + Quoted("a.example/app:1")).data()["name"], "one");
}

}  // namespace
}  // namespace bunker::controller
