// Bridges and the interfaces of transit over REST: what is taken, what is refused, what is told.
#include <string>
#include <vector>

#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

class BridgeRestTest : public GatewayFixture {
 protected:
  void Ground() {
    Boot();
    worker_ = JoinWorker("w");
    const Json image = {{"name", "x"},
                        {"build_source", {{"kind", "oci"}, {"ref", "docker.io/r-base:4.4"}}},
                        {"size_mib", 64}};
    const Answer made = Call("POST", "/images", image.dump());
    ASSERT_EQ(made.status, 201) << made.body;
    const std::string id = made.data()["id"];
    const std::string group =
        Call("POST", "/availability-groups", R"({"name": "g"})").data()["id"];
    for (const auto& [noun, ref] :
         std::vector<std::pair<std::string, std::string>>{{"images", id}, {"workers", worker_}})
      Call("POST", "/availability-groups/" + group + "/" + noun, Json{{"ref", ref}}.dump());
    FinishBake(worker_, id);
    ReportBridge(worker_, "br-lab");
  }
  Answer Create(const Json& interfaces, const std::string& key = "") {
    const Json body = {{"image", "x"},
                       {"cpu_millicores", 50},
                       {"memory_mb", 64},
                       {"network_profile", "transit"},
                       {"interfaces", interfaces}};
    return Raw("POST", std::string(kModule) + "/bunkers",
               "Authorization: Bearer " + (key.empty() ? key_ : key) +
                   "\r\nContent-Type: application/json\r\n",
               body.dump());
  }

  std::string worker_;
};

TEST_F(BridgeRestTest, IsRegisteredListedAndDeleted) {
  Ground();
  EXPECT_EQ(Call("POST", "/bridges", R"({"name": "br-other"})").code(), "NOT_FOUND");
  for (const char* name : {"", "..", "a/b", "has space", "sixteen-letters-"}) {
    const Answer answer = Call("POST", "/bridges", Json{{"name", name}}.dump());
    EXPECT_EQ(answer.status, 422) << name;
    EXPECT_EQ(answer.field(), "name") << answer.body;
  }
  const Answer made = Call("POST", "/bridges", R"({"name": "br-lab", "workers": ["w"]})");
  ASSERT_EQ(made.status, 201) << made.body;
  const Json row = made.data();
  EXPECT_EQ(row["id"].get<std::string>().substr(0, 3), "br_");
  EXPECT_EQ(row["scope"], "tenant");
  EXPECT_EQ(row["tenant_ids"], Json::array({tenant_id_}));
  EXPECT_EQ(row["workers"], Json::array({worker_}));
  EXPECT_EQ(Call("GET", "/bridges").data(), Json::array({row}));
  const std::string path = "/bridges/" + row["id"].get<std::string>();
  EXPECT_EQ(Call("GET", path).data(), row);
  EXPECT_EQ(Call("POST", "/bridges", R"({"name": "br-lab"})").code(), "SLUG_CONFLICT");

  const Json card = {{"if_name", "lan0"}, {"bridge_name", "br-lab"}};
  const Answer bunker = Create(Json::array({card}));
  ASSERT_EQ(bunker.status, 201) << bunker.body;
  const Json shown = bunker.data()["interfaces"][0];
  EXPECT_EQ(shown["if_name"], "lan0");
  EXPECT_EQ(shown["spoof_guard"], true);
  EXPECT_EQ(shown["mac"].get<std::string>().substr(0, 3), "02:");
  EXPECT_TRUE(shown["ipv4"].is_null());
  EXPECT_EQ(Call("DELETE", path).code(), "RESOURCE_IN_USE");
}

TEST_F(BridgeRestTest, InterfacesAreHeldToTheirForm) {
  Ground();
  ASSERT_EQ(Call("POST", "/bridges", R"({"name": "br-lab"})").status, 201);
  const auto with = [](Json more = Json::object()) {
    Json card = {{"if_name", "eth0"}, {"bridge_name", "br-lab"}};
    card.update(more);
    return card;
  };
  const std::vector<std::pair<Json, std::string>> refused = {
      {{with({{"if_name", "lo"}})}, "interfaces[0].if_name"},
      {{with({{"if_name", "a b"}})}, "interfaces[0].if_name"},
      {{with({{"if_name", "../x"}})}, "interfaces[0].if_name"},
      {{with({{"if_name", "0eth"}})}, "interfaces[0].if_name"},
      {{with({{"if_name", "sixteen-letters-"}})}, "interfaces[0].if_name"},
      {{with({{"bridge_name", "a;b"}})}, "interfaces[0].bridge_name"},
      {{with({{"mac", "02:00:00:00:00"}})}, "interfaces[0].mac"},
      {{with({{"mac", "01:00:5e:00:00:01"}})}, "interfaces[0].mac"},
      {{with({{"mac", "ff:ff:ff:ff:ff:ff"}})}, "interfaces[0].mac"},
      {{with({{"mac", "00:00:00:00:00:00"}})}, "interfaces[0].mac"},
      {{with({{"mac", "02-00-00-00-00-01"}})}, "interfaces[0].mac"},
      {{with({{"ipv4", "192.0.2.5"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "192.0.2.5/33"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "192.0.2.5/0"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "192.0.2.5/024"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "192.0.2.0/24"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "192.0.2.255/24"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "127.0.0.1/8"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "224.0.0.5/24"}})}, "interfaces[0].ipv4"},
      {{with({{"ipv4", "fe80::1/64"}})}, "interfaces[0].ipv4"},
      {{with({{"gateway", "192.0.2.1"}})}, "interfaces[0].gateway"},
      {{with({{"ipv4", "192.0.2.5/24"}, {"gateway", "192.0.3.1"}})}, "interfaces[0].gateway"},
      {{with({{"ipv4", "192.0.2.5/24"}, {"gateway", "192.0.2.5"}})}, "interfaces[0].gateway"},
      {{with({{"ipv4", "192.0.2.5/24"}, {"gateway", "192.0.2.255"}})}, "interfaces[0].gateway"},
  };
  for (const auto& [card, field] : refused) {
    const Answer answer = Create(card.is_array() ? card : Json::array({card}));
    EXPECT_EQ(answer.status, 422) << card << answer.body;
    EXPECT_EQ(answer.field(), field) << card << answer.body;
  }
  const auto field_of = [&](const Json& cards) {
    const Answer answer = Create(cards);
    EXPECT_EQ(answer.status, 422) << cards << answer.body;
    return answer.field();
  };
  EXPECT_EQ(field_of(Json::array({with(), with()})), "interfaces[1].if_name");
  const Json mac = {{"mac", "02:00:00:00:00:aa"}};
  Json upper = with({{"mac", "02:00:00:00:00:AA"}, {"if_name", "eth1"}});
  EXPECT_EQ(field_of(Json::array({with(mac), upper})), "interfaces[1].mac");
  Json many = Json::array();
  for (int i = 0; i < 9; ++i) many.push_back(with({{"if_name", "eth" + std::to_string(i)}}));
  EXPECT_EQ(field_of(many), "interfaces");
  EXPECT_EQ(Create(Json::array()).code(), "TRANSIT_MISSING_INTERFACES");
  const Json isolated = {{"image", "x"}, {"interfaces", Json::array({with()})}};
  EXPECT_EQ(Call("POST", "/bunkers", isolated.dump()).code(), "INTERFACES_NOT_ALLOWED");
  // What is taken is shown in one form.
  const Answer made = Create(Json::array({with({{"mac", "02:00:5E:10:00:0A"},
                                                {"ipv4", "192.0.2.5/24"},
                                                {"gateway", "192.0.2.1"}})}));
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(made.data()["interfaces"][0]["mac"], "02:00:5e:10:00:0a");
  EXPECT_EQ(made.data()["interfaces"][0]["ipv4"], "192.0.2.5/24");
}

TEST_F(BridgeRestTest, NoGuardNeedsItsPermissionAndIsAudited) {
  const std::string user = AddUser("user", Role::kTenantUser);
  Ground();
  const Answer granted = Raw("PUT", "/v1/users/" + last_user_id_ + "/module-permissions",
                             AuthHeader() + "Content-Type: application/json\r\n",
                             R"({"permissions": ["scaibunker:network:transit"]})");
  ASSERT_EQ(granted.status, 200) << granted.body;
  ASSERT_EQ(Call("POST", "/bridges", R"({"name": "br-lab"})").status, 201);
  const Json card = {{"if_name", "eth0"}, {"bridge_name", "br-lab"}, {"spoof_guard", false}};
  const Answer refused = Create(Json::array({card}), user);
  EXPECT_EQ(refused.status, 403) << refused.body;
  EXPECT_NE(refused.message().find("l2_transparency"), std::string::npos) << refused.body;
  const Answer made = Create(Json::array({card}));
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(made.data()["interfaces"][0]["spoof_guard"], false);
  int told = 0;
  const Answer audit = Call("GET", "/audit?limit=200");
  ASSERT_EQ(audit.status, 200) << audit.body;
  for (const Json& row : audit.data()) {
    if (row["action"] != "Bunkers.CreateBunker" || !row["detail"].is_string()) continue;
    if (row["detail"].get<std::string>().find("l2_transparency") == std::string::npos) continue;
    ++told;
    if (row["outcome"] == "ok") {
      EXPECT_EQ(row["target"], made.data()["id"]);
    }
  }
  EXPECT_EQ(told, 2) << "the one that was refused and the one that was made";
}

TEST_F(BridgeRestTest, AnotherTenantMeetsNothing) {
  const std::string other = AddUser("other", Role::kTenantAdmin, AddTenant("t2"));
  Ground();
  ASSERT_EQ(Call("POST", "/bridges", R"({"name": "br-lab"})").status, 201);
  const Json card = {{"if_name", "eth0"}, {"bridge_name", "br-lab"}};
  const Json none = {{"if_name", "eth0"}, {"bridge_name", "br-none"}};
  // Its own image, so that it is the bridge that is missing.
  const Json image = {{"name", "x"},
                      {"build_source", {{"kind", "oci"}, {"ref", "docker.io/r-base:4.4"}}},
                      {"size_mib", 64}};
  const std::string headers =
      "Authorization: Bearer " + other + "\r\nContent-Type: application/json\r\n";
  ASSERT_EQ(Raw("POST", std::string(kModule) + "/images", headers, image.dump()).status, 201);
  const Answer theirs = Create(Json::array({card}), other);
  const Answer nobodys = Create(Json::array({none}), other);
  EXPECT_EQ(theirs.status, 404) << theirs.body;
  EXPECT_EQ(theirs.code(), nobodys.code());
  std::string message = theirs.message();
  const size_t at = message.find("br-lab");
  ASSERT_NE(at, std::string::npos) << message;
  EXPECT_EQ(message.replace(at, 6, "br-none"), nobodys.message());
}

}  // namespace
}  // namespace bunker::controller
