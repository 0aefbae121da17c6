// Bridges: whose they are, who may attach to them, and what attached bunkers hold.
#include "controller/engine/bridges.h"

#include "controller/engine/snapshots.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

Caller In(const std::string& tenant, const std::string& partner, Role role) {
  Caller caller;
  caller.tenant_id = tenant;
  caller.partner_id = partner;
  caller.role = role;
  caller.user_id = "usr_" + tenant;
  caller.sees_all_bunkers = true;
  caller.manages_all_bunkers = true;
  return caller;
}

class BridgeTest : public testing::Test {
 protected:
  BridgeTest() {
    // A platform worker that all share.
    shared = h.AddWorker("w1");
    Report(shared, {"br-lab", "br-wan"});
    own = h.admin;
    image = h.Register("a")->id;
    h.MakeGroup("g", {"a"}, {"w1"});
    h.MakeReady(shared, image);
  }

  void Report(const std::string& worker, const std::set<std::string>& bridges) {
    WorkerFacts facts;
    facts.capacity = {4000, 8192, 100'000};
    facts.arch = Arch::kX86_64;
    facts.network_profiles = {"isolated", "transit"};
    facts.bridges = bridges;
    h.ConnectWith(worker, facts);
  }
  absl::StatusOr<RowPtr<Bridge>> Make(const Caller& caller, const std::string& name,
                                      Scope scope = Scope::kTenant,
                                      const std::set<std::string>& tenants = {},
                                      const std::vector<std::string>& workers = {}) {
    return h.Do([&](Engine& e, Turn& t) {
      return e.bridges().Create(t, caller, {name, scope, tenants, workers});
    });
  }
  std::string Removed(const Caller& caller, const std::string& id) {
    return ReasonOf(h.Do([&](Engine& e, Turn& t) { return e.bridges().Delete(t, caller, id); }));
  }
  std::string Found(const Caller& caller, const std::string& id) {
    return ReasonOf(
        h.Do([&](Engine& e, Turn&) { return e.bridges().Find(caller, id); }).status());
  }
  static BunkerInterface On(const std::string& bridge, const std::string& name = "eth0") {
    BunkerInterface interface;
    interface.if_name = name;
    interface.bridge_name = bridge;
    return interface;
  }
  absl::StatusOr<RowPtr<Bunker>> Attach(std::vector<BunkerInterface> interfaces,
                                        PlacementExplanation* why = nullptr) {
    return h.Create(
        "a",
        [&](CreateBunkerSpec& spec) {
          spec.network_profile = NetworkProfile::kTransit;
          spec.interfaces = interfaces;
          spec.cpu_millicores = 50;
          spec.memory_mb = 64;
        },
        why);
  }

  Harness h;
  Caller own;  // a super_admin with a tenant of its own
  std::string shared, image;
  const Caller a = In("tnt_a", "ptr_1", Role::kTenantAdmin);
  const Caller p = In("tnt_p", "ptr_1", Role::kPartnerAdmin);
};

TEST_F(BridgeTest, OnlyWhatAWorkerInScopeReportsCanBeRegistered) {
  EXPECT_EQ(ReasonOf(Make(own, "br-none").status()), "NOT_FOUND");
  // The worker is only shared with them: its bridges are not theirs to open.
  EXPECT_EQ(ReasonOf(Make(a, "br-lab").status()), "NOT_FOUND");
  EXPECT_EQ(ReasonOf(Make(p, "br-lab").status()), "NOT_FOUND");
  EXPECT_EQ(ReasonOf(Make(a, "br-lab", Scope::kTenant, {}, {"w1"}).status()),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(ReasonOf(Make(a, "br-lab", Scope::kPlatform, {"tnt_a"}).status()),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(ReasonOf(Make(own, "br-lab", Scope::kTenant, {}, {"nobody"}).status()), "NOT_FOUND");
  ASSERT_TRUE(Make(own, "br-lab", Scope::kTenant, {}, {"w1"}).ok());
  EXPECT_EQ(ReasonOf(Make(own, "br-lab").status()), "SLUG_CONFLICT");
}

TEST_F(BridgeTest, WhoMayAttachIsNamed) {
  EXPECT_EQ(ReasonOf(Make(own, "br-lab", Scope::kTenant, {"tnt_a"}).status()), "VALIDATION_ERROR");
  EXPECT_EQ(ReasonOf(Make(own, "br-lab", Scope::kPlatform).status()), "VALIDATION_ERROR");
  EXPECT_EQ(ReasonOf(Make(own, "br-lab", Scope::kPlatform, {"tnt_none"}).status()),
            "VALIDATION_ERROR");
  const auto row = Make(own, "br-lab", Scope::kPlatform, {own.tenant_id});
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_EQ(Found(own, (*row)->id), "");
  EXPECT_EQ(Found(a, (*row)->id), "NOT_FOUND") << "the platform's are not everybody's";
  EXPECT_EQ(Removed(a, (*row)->id), "NOT_FOUND");
  EXPECT_TRUE(h.Do([&](Engine& e, Turn&) { return e.bridges().List(a, {}); }).rows.empty());
  // One that may attach and does not own it.
  const Caller user = In(own.tenant_id, own.partner_id, Role::kTenantAdmin);
  EXPECT_EQ(Found(user, (*row)->id), "");
  EXPECT_EQ(Removed(user, (*row)->id), "AUTHZ_PERMISSION_DENIED");
}

TEST_F(BridgeTest, ABunkerAttachesAndItsCardKeepsItsName) {
  EXPECT_EQ(ReasonOf(Attach({On("br-lab")}).status()), "NOT_FOUND") << "reported, not registered";
  const RowPtr<Bridge> bridge = *Make(own, "br-lab");
  const auto row = Attach({On("br-lab"), On("br-lab", "eth1")});
  ASSERT_TRUE(row.ok()) << row.status();
  const std::vector<BunkerInterface> cards = (*row)->interfaces;
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].bridge_id, bridge->id);
  EXPECT_EQ(cards[0].mac.substr(0, 3), "02:");
  EXPECT_EQ(cards[0].mac.size(), 17u);
  EXPECT_NE(cards[0].mac, cards[1].mac);
  EXPECT_EQ(h.BunkerRow(shared, (*row)->id)->interfaces, cards);
  EXPECT_EQ(Removed(own, bridge->id), "RESOURCE_IN_USE");
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, own, (*row)->id); });
  h.ObserveBunker(shared, (*row)->id, BunkerStatus::kStopped);
  EXPECT_EQ(Removed(own, bridge->id), "");
  EXPECT_EQ(ReasonOf(Attach({On("br-lab")}).status()), "NOT_FOUND");
}

TEST_F(BridgeTest, NobodyElseOnABridgeMayBeCalledTheSame) {
  ASSERT_TRUE(Make(own, "br-lab").ok());
  ASSERT_TRUE(Make(own, "br-wan").ok());
  BunkerInterface card = On("br-lab");
  card.mac = "02:00:00:00:00:01";
  card.ipv4 = "192.0.2.5/24";
  const auto first = Attach({card});
  ASSERT_TRUE(first.ok()) << first.status();
  BunkerInterface same_mac = On("br-lab"), same_address = On("br-lab");
  same_mac.mac = card.mac;
  same_address.ipv4 = "192.0.2.5/25";
  for (const BunkerInterface& taken : {same_mac, same_address}) {
    const absl::Status refused = Attach({taken}).status();
    EXPECT_EQ(ReasonOf(refused), "VALIDATION_ERROR");
    EXPECT_NE(std::string(refused.message()).find("interfaces[0]."), std::string::npos);
  }
  BunkerInterface elsewhere = card;
  elsewhere.bridge_name = "br-wan";
  EXPECT_TRUE(Attach({elsewhere}).ok());
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, own, (*first)->id); });
  h.ObserveBunker(shared, (*first)->id, BunkerStatus::kStopped);
  EXPECT_TRUE(Attach({same_mac}).ok());
  // Copies can't share an address, and get a MAC each.
  const auto copies = [&](const BunkerInterface& of) {
    return h.Create("a", [&](CreateBunkerSpec& spec) {
      spec.network_profile = NetworkProfile::kTransit;
      spec.interfaces = {of};
      spec.replicas = 1;
    });
  };
  EXPECT_EQ(ReasonOf(copies(same_address).status()), "VALIDATION_ERROR");
  EXPECT_TRUE(copies(On("br-lab")).ok());
}

TEST_F(BridgeTest, ItsMemoryIsNotKeptForItsCardsHaveNamesOfTheirOwn) {
  ASSERT_TRUE(Make(own, "br-lab").ok());
  const auto row = Attach({On("br-lab")});
  ASSERT_TRUE(row.ok()) << row.status();
  h.ObserveBunker(shared, (*row)->id, BunkerStatus::kRunning);
  const auto snapshot = [&](bool memory) {
    return h.Do([&](Engine& e, Turn& t) {
      return e.snapshots().Take(t, own, (*row)->id, {"", memory});
    });
  };
  const absl::Status refused = snapshot(true).status();
  EXPECT_EQ(ReasonOf(refused), "VALIDATION_ERROR");
  EXPECT_NE(refused.message().find("transit"), std::string::npos) << refused;
  EXPECT_TRUE(snapshot(false).ok()) << "its disk is";
}

TEST_F(BridgeTest, ABunkerGoesWhereItsBridgesAre) {
  const std::string other = h.AddWorker("w2");
  h.Do([&](Engine& e, Turn& t) { return e.AttachWorker(t, own, "g", "w2"); }).IgnoreError();
  h.MakeReady(other, image);
  Report(other, {"br-lab"});
  ASSERT_TRUE(Make(own, "br-lab", Scope::kTenant, {}, {"w1"}).ok());
  ASSERT_TRUE(Make(own, "br-wan").ok());
  for (int i = 0; i < 4; ++i) {
    const auto row = Attach({On("br-lab")});
    ASSERT_TRUE(row.ok()) << row.status();
    EXPECT_EQ((*row)->worker_id, shared) << "the other worker's was not registered";
  }
  Report(shared, {"br-wan"});
  PlacementExplanation why;
  EXPECT_EQ(ReasonOf(Attach({On("br-lab"), On("br-wan", "eth1")}, &why).status()),
            "WORKER_UNAVAILABLE");
  EXPECT_EQ(why.counts["bridges"], 2u);
}

}  // namespace
}  // namespace bunker::controller
