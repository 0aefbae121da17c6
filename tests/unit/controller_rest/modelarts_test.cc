// The ModelArts routes: flat bodies, the seed's fields, one registration for a path, who may read
// what.
#include <set>
#include <string>

#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

constexpr char kPath[] =
    "swr.xxx.com/op_svc_modelarts_container2/pytorch_1_8:train-pytorch_1.8.0-cuda_10.2-py_3.7";

class ModelArtsTest : public GatewayFixture {
 protected:
  Answer Ask(const std::string& method, const std::string& path, const std::string& body = "") {
    return As(key_, method, tenant_id_ + path, body);
  }
  Answer As(const std::string& key, const std::string& method, const std::string& path,
            const std::string& body = "") {
    return Raw(method, "/v1/" + path,
               "Authorization: Bearer " + key + "\r\nContent-Type: application/json\r\n", body);
  }
  Answer Register(const std::string& path, const std::string& more = "") {
    return Ask("POST", "/images", R"({"swr_path": ")" + path + "\"" + more + "}");
  }
  // Puts everything into a group with a new worker, so that it is assigned.
  std::string GroupOf(const std::string& image) {
    const std::string worker = JoinWorker("w1");
    Call("POST", "/availability-groups", R"({"name": "g"})");
    Call("POST", "/availability-groups/g/workers", R"({"ref": "w1"})");
    EXPECT_EQ(Call("POST", "/availability-groups/g/images", R"({"ref": ")" + image + "\"}").status,
              200);
    return worker;
  }
};

TEST_F(ModelArtsTest, TheSeedsRequestGetsTheSeedsAnswer) {
  Boot();
  const Answer made = Ask("POST", "/images", R"({
      "description": "", "resource_category": ["CPU"], "arch": "X86_64",
      "swr_path": ")" + std::string(kPath) + "\"}");
  ASSERT_EQ(made.status, 200) << made.body;
  const std::string id = made.json["id"];
  const auto created_ms = made.json["create_at"].get<uint64_t>();
  EXPECT_EQ(made.json, Json({{"arch", "X86_64"},
                             {"create_at", created_ms},
                             {"description", ""},
                             {"dev_services", {"NOTEBOOK", "SSH"}},
                             {"id", id},
                             {"name", "pytorch_1_8"},
                             {"namespace", "op_svc_modelarts_container2"},
                             {"origin", "CUSTOMIZE"},
                             {"resource_categories", Json::array({"CPU"})},
                             {"service_type", "UNKNOWN"},
                             {"size", 0},
                             {"status", "INIT"},
                             {"support_res_categories", Json::array({"CPU"})},
                             {"swr_path", kPath},
                             {"tag", "train-pytorch_1.8.0-cuda_10.2-py_3.7"},
                             {"type", "DEDICATED"},
                             {"update_at", created_ms},
                             {"visibility", "PRIVATE"},
                             {"workspace_id", "0"}}));
  EXPECT_EQ(id.size(), 36u);

  const std::string worker = GroupOf(id);
  const Answer ours = Call("GET", "/images/" + id);
  EXPECT_EQ(ours.data()["name"], "pytorch_1_8-train-pytorch_1.8.0-cuda_10.2-py_3.7");
  FinishBake(worker, ours.data()["id"]);
  const Answer row = Ask("GET", "/images/" + id);
  ASSERT_EQ(row.status, 200) << row.body;
  EXPECT_EQ(row.json["status"], "ACTIVE");
  EXPECT_EQ(row.json["size"], 5);  // 5000 bytes
  EXPECT_EQ(Call("DELETE", "/images/" + id).status, 200);
  EXPECT_EQ(Ask("GET", "/images/" + id).json["status"], "DELETED");
}

TEST_F(ModelArtsTest, DefaultsAndTheListsPages) {
  Boot();
  const Answer made = Register("reg.example/a/b:1");
  EXPECT_EQ(made.json["resource_categories"], Json({"CPU", "GPU"}));
  EXPECT_EQ(Register("reg.example/a/b:2").status, 200);
  EXPECT_EQ(Register("reg.example/c:1").status, 200);
  EXPECT_EQ(Call("POST", "/images", R"({"name": "tar", "size_mib": 16, "build_source":
                                        {"kind": "tar", "path": "/x"}})")
                .status,
            201);
  const Answer page = Ask("GET", "/images?limit=2&offset=2");
  ASSERT_EQ(page.status, 200) << page.body;
  EXPECT_EQ(page.json["total"], 3);  // what came from no registry has no path
  EXPECT_EQ(page.json["pages"], 2);
  EXPECT_EQ(page.json["current"], 1);
  ASSERT_EQ(page.json["data"].size(), 1u);
  EXPECT_EQ(page.json["data"][0]["id"], made.json["id"]);
  EXPECT_EQ(Ask("GET", "/images?name=b").json["total"], 2);
  EXPECT_EQ(Ask("GET", "/images?namespace=a").json["total"], 2);
  EXPECT_EQ(Ask("GET", "/images?limit=0").json["error_code"], "VALIDATION_ERROR");
}

TEST_F(ModelArtsTest, OnePathOneImage) {
  Boot();
  ASSERT_EQ(Register("reg.example/a/b:1").status, 200);
  const Answer again = Register("reg.example/a/b:1");
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(again.json["error_code"], "SLUG_CONFLICT");
  EXPECT_NE(again.json["error_msg"].get<std::string>().find("reg.example/a/b:1"),
            std::string::npos);
  EXPECT_FALSE(again.json.contains("status"));
  // Another path whose name would be the same gets one of its own, and it stays the same.
  const Answer other = Register("reg.example/z/b:1");
  ASSERT_EQ(other.status, 200) << other.body;
  EXPECT_EQ(Register("reg.example/z/b:1").status, 409);
  EXPECT_EQ(Call("GET", "/images/b-1").data()["build_source"]["ref"], "reg.example/a/b:1");
  // A path is unique, the same image by our own routes is another registration.
  EXPECT_EQ(Call("POST", "/images", R"({"name": "mine", "size_mib": 16, "build_source":
                 {"kind": "oci", "ref": "reg.example/a/b:1"}})")
                .status,
            201);
}

TEST_F(ModelArtsTest, WhatIsWrongIsToldFlat) {
  Boot();
  const auto error = [this](const std::string& body) {
    const Answer answer = Ask("POST", "/images", body);
    EXPECT_FALSE(answer.json.contains("meta")) << answer.body;
    return std::to_string(answer.status) + " " + answer.json.value("error_code", "");
  };
  EXPECT_EQ(error("{}"), "422 VALIDATION_ERROR");
  EXPECT_EQ(error(R"({"swr_path": "UPPER/x"})"), "422 VALIDATION_ERROR");
  EXPECT_EQ(error(R"({"swr_path": "a/b:1", "origin": "IMAGE_SAVE"})"), "422 VALIDATION_ERROR");
  EXPECT_EQ(error(R"({"swr_path": "a/b:1", "arch": "x86_64"})"), "422 VALIDATION_ERROR");
  EXPECT_EQ(error(R"({"swr_path": "a/b:1", "project_id": "x"})"), "422 VALIDATION_ERROR");
  EXPECT_EQ(error(R"({"swr_path": "a/b:1", "description": ")" + std::string(513, 'd') + "\"}"),
            "422 VALIDATION_ERROR");
  EXPECT_EQ(As("sgk_nope", "GET", tenant_id_ + "/images").json["error_code"], "AUTH_TOKEN_INVALID");
  EXPECT_EQ(Ask("GET", "/images/none").json["error_code"], "NOT_FOUND");
  EXPECT_EQ(Ask("DELETE", "/images/none").status, 405);
}

TEST_F(ModelArtsTest, ProjectsAreTenants) {
  const std::string other_tenant = AddTenant("other");
  const std::string other = AddUser("o", Role::kTenantAdmin, other_tenant);
  const std::string viewer = AddUser("v", Role::kTenantViewer);
  Boot();
  const std::string secret = Register("reg.example/a/secret:1").json["id"];
  const std::string open =
      Register("reg.example/a/open:1", R"(, "visibility": "PUBLIC")").json["id"];
  // A foreign project looks like one that isn't there; a missing permission is another thing.
  for (const std::string& project : {tenant_id_, std::string("tnt_none")}) {
    const Answer answer = As(other, "GET", project + "/images");
    EXPECT_EQ(answer.status, 404);
    EXPECT_EQ(answer.json["error_code"], "NOT_FOUND");
  }
  EXPECT_EQ(As(viewer, "POST", tenant_id_ + "/images", R"({"swr_path": "a/b:1"})").status, 403);
  EXPECT_EQ(As(viewer, "GET", tenant_id_ + "/images/" + secret).status, 200);
  // PUBLIC: to be read by its id, and nothing else.
  EXPECT_EQ(As(other, "GET", other_tenant + "/images/" + secret).status, 404);
  EXPECT_EQ(As(other, "GET", other_tenant + "/images/" + open).status, 200);
  EXPECT_EQ(As(other, "GET", other_tenant + "/images").json["total"], 0);
  EXPECT_EQ(As(other, "GET", "modules/scaibunker/images/" + open).status, 404);
  EXPECT_EQ(As(other, "POST", "modules/scaibunker/bunkers", R"({"image": ")" + open + "\"}").status,
            404);
}

TEST_F(ModelArtsTest, APathThatDoesNotResolveIsAnError) {
  Boot();
  const std::string id = Register("reg.example/a/b:1").json["id"];
  const std::string worker = GroupOf(id);
  ImageObservation seen;
  seen.image_id = Call("GET", "/images/" + id).data()["id"];
  seen.attempt = 1;
  seen.status = CacheStatus::kFailed;
  seen.error_code = "IMAGE_NOT_FOUND";
  seen.error_message = "no such tag";
  Observe(worker, seen);
  const Answer row = Ask("GET", "/images/" + id);
  EXPECT_EQ(row.json["status"], "ERROR");
  EXPECT_EQ(row.json["status_message"], "IMAGE_NOT_FOUND: no such tag");
}

}  // namespace
}  // namespace bunker::controller
