#include "controller/engine/quotas.h"

#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

class QuotasTest : public testing::Test {
 protected:
  void SetUp() override {
    w1 = h.AddWorker("w1", {100'000, 100'000, 1'000'000});
    image = h.Register("a");
    h.MakeGroup("g", {"a"}, {w1});
    h.MakeReady(w1, image->id);
  }

  RowPtr<QuotaProfile> Profile(const std::string& name, Scope scope,
                               std::function<void(QuotaCaps&)> set) {
    QuotaProfileSpec spec;
    spec.name = name;
    spec.scope = scope;
    set(spec.caps);
    const auto row =
        h.Do([&](Engine& e, Turn& t) { return e.quotas().CreateProfile(t, h.admin, spec); });
    EXPECT_TRUE(row.ok()) << row.status();
    return *row;
  }
  absl::StatusOr<RowPtr<QuotaAssignment>> Assign(const Caller& caller, const std::string& profile,
                                                 const std::string& user) {
    QuotaAssignmentSpec spec;
    spec.profile = profile;
    spec.target_id = user;
    return h.Do([&](Engine& e, Turn& t) { return e.quotas().Assign(t, caller, spec); });
  }
  std::vector<QuotaRow> Rows() {
    return h.Do([&](Engine& e, Turn&) { return e.quotas().Applying(h.admin.user_id); });
  }
  absl::Status Create(uint32_t replicas = 0) {
    CreateBunkerSpec spec;
    spec.image = "a";
    spec.cpu_millicores = 500;
    spec.memory_mb = 256;
    spec.replicas = replicas;
    return h.Do([&](Engine& e, Turn& t) { return e.CreateBunkers(t, h.admin, spec, nullptr); })
        .status();
  }

  Harness h;
  std::string w1;
  RowPtr<Image> image;
};

TEST_F(QuotasTest, WithoutAnyThereIsNone) {
  EXPECT_TRUE(Rows().empty());
  EXPECT_TRUE(Create(20).ok());
}

TEST_F(QuotasTest, OverACapTheErrorNamesProfileCapAndUsage) {
  Profile("small", Scope::kTenant, [](QuotaCaps& c) { c.max_memory_mb = 1024; });
  ASSERT_TRUE(Assign(h.admin, "small", h.admin.user_id).ok());
  EXPECT_TRUE(Create(2).ok());
  const absl::Status over = Create(1);
  EXPECT_EQ(ReasonOf(over), "BUNKER_QUOTA_EXCEEDED");
  EXPECT_NE(over.message().find("quota profile small: max_memory_mb is 1024, 768 in use, 512 more"),
            absl::string_view::npos)
      << over;
  EXPECT_TRUE(Create().ok());  // the guest's memory alone counts: 4 × 256
  EXPECT_EQ(ReasonOf(Create()), "BUNKER_QUOTA_EXCEEDED");
}

TEST_F(QuotasTest, ThePlatformsDefaultHoldsUntilAnotherApplies) {
  Profile("default", Scope::kPlatform, [](QuotaCaps& c) { c.max_concurrent_bunkers = 1; });
  EXPECT_TRUE(Create().ok());
  EXPECT_EQ(ReasonOf(Create()), "BUNKER_QUOTA_EXCEEDED");
  ASSERT_EQ(Rows().size(), 1u);
  EXPECT_EQ(Rows()[0].assignment, nullptr);
  Profile("more", Scope::kTenant, [](QuotaCaps& c) { c.max_concurrent_bunkers = 3; });
  ASSERT_TRUE(Assign(h.admin, "more", h.admin.user_id).ok());
  EXPECT_TRUE(Create(1).ok());
  EXPECT_EQ(ReasonOf(Create()), "BUNKER_QUOTA_EXCEEDED");
}

TEST_F(QuotasTest, WhatEndsIsGivenBackAndALowerCapStopsNothing) {
  const RowPtr<QuotaProfile> profile =
      Profile("p", Scope::kTenant, [](QuotaCaps& c) { c.max_concurrent_bunkers = 2; });
  ASSERT_TRUE(Assign(h.admin, "p", h.admin.user_id).ok());
  ASSERT_TRUE(Create(1).ok());
  h.Must([&](Engine& e, Turn& t) {
    QuotaProfileUpdate update;
    update.caps.max_concurrent_bunkers = 1;
    return e.quotas().UpdateProfile(t, h.admin, profile->id, update);
  });
  const auto page = h.engine->ListBunkers(h.admin, {}, {10, ""});
  EXPECT_EQ(page.rows.size(), 2u);
  for (const auto& row : page.rows) EXPECT_TRUE(row->live());
  EXPECT_EQ(Rows()[0].usage.bunkers, 2u);
  for (const auto& row : page.rows) {
    EXPECT_EQ(ReasonOf(Create()), "BUNKER_QUOTA_EXCEEDED");
    h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, row->id); });
    h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  }
  EXPECT_EQ(Rows()[0].usage, QuotaUsage{});
  EXPECT_TRUE(Create().ok());
}

TEST_F(QuotasTest, UsageIsTheSameAfterARestart) {
  Profile("p", Scope::kTenant, [](QuotaCaps& c) { c.max_concurrent_bunkers = 3; });
  ASSERT_TRUE(Assign(h.admin, "p", h.admin.user_id).ok());
  ASSERT_TRUE(Create(2).ok());
  Harness again({}, false, h.store->rows(), h.loop.Now());
  const auto rows =
      again.Do([&](Engine& e, Turn&) { return e.quotas().Applying(again.admin.user_id); });
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].usage, Rows()[0].usage);
  EXPECT_EQ(rows[0].usage.bunkers, 3u);
}

TEST_F(QuotasTest, RowsAreProtectedByScopeAndUse) {
  const RowPtr<QuotaProfile> profile = Profile("p", Scope::kPlatform, [](QuotaCaps&) {});
  Caller tenant = h.admin;
  tenant.role = Role::kTenantAdmin;
  Caller other = tenant;
  other.tenant_id = "tnt_other";
  // The platform binds a user: the tenant's admin can't loose it.
  const auto assigned = Assign(h.admin, "p", h.admin.user_id);
  ASSERT_TRUE(assigned.ok());
  EXPECT_EQ(ReasonOf(Assign(h.admin, "p", h.admin.user_id).status()), "RESOURCE_IN_USE");
  const auto unassign = [&](const Caller& caller) {
    return ReasonOf(h.Do([&](Engine& e, Turn& t) {
                       return e.quotas().Unassign(t, caller, (*assigned)->id);
                     }).status());
  };
  EXPECT_EQ(unassign(tenant), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(unassign(other), "NOT_FOUND");
  const auto remove = [&](const Caller& caller) {
    return ReasonOf(h.Do([&](Engine& e, Turn& t) {
                       return e.quotas().DeleteProfile(t, caller, profile->id);
                     }).status());
  };
  EXPECT_EQ(remove(tenant), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(remove(h.admin), "RESOURCE_IN_USE");
  EXPECT_EQ(unassign(h.admin), "");
  EXPECT_EQ(remove(h.admin), "");
  EXPECT_EQ(ReasonOf(Assign(h.admin, "p", h.admin.user_id).status()), "NOT_FOUND");
  // Another tenant's users are not there.
  Profile("own", Scope::kPlatform, [](QuotaCaps&) {});
  EXPECT_EQ(ReasonOf(Assign(other, "own", h.admin.user_id).status()), "NOT_FOUND");
}

TEST_F(QuotasTest, ReplicasAreAllOrNone) {
  const RowPtr<Bunker> taken = *h.Create("a", [](CreateBunkerSpec& s) { s.name = "web-2"; });
  const MemStore::Rows rows = h.store->rows();
  CreateBunkerSpec spec;
  spec.image = "a";
  spec.name = "web";
  spec.replicas = 3;
  const auto create = [&] {
    return h.Do([&](Engine& e, Turn& t) { return e.CreateBunkers(t, h.admin, spec, nullptr); });
  };
  EXPECT_EQ(ReasonOf(create().status()), "SLUG_CONFLICT");  // the third of them
  EXPECT_EQ(h.store->rows(), rows);
  h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, taken->id); });
  h.ObserveBunker(w1, taken->id, BunkerStatus::kStopped);
  const auto made = create();
  ASSERT_TRUE(made.ok()) << made.status();
  std::vector<std::string> names;
  for (const auto& row : *made) names.push_back(row->name);
  EXPECT_EQ(names, (std::vector<std::string>{"web", "web-1", "web-2", "web-3"}));

  // More than there is room for: none, and the rest of the room is as it was.
  const WorkerView before = *h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); });
  spec.name.clear();
  spec.cpu_millicores = 20'000;
  spec.replicas = 5;
  PlacementExplanation why;
  const auto none =
      h.Do([&](Engine& e, Turn& t) { return e.CreateBunkers(t, h.admin, spec, &why); });
  EXPECT_EQ(ReasonOf(none.status()), "WORKER_UNAVAILABLE");
  EXPECT_NE(none.status().message().find("only 4 of 6 bunkers have a place"),
            absl::string_view::npos)
      << none.status();
  EXPECT_EQ(why.counts.at("cpu"), 1u);
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); })->allocated,
            before.allocated);
  const auto explained =
      h.Do([&](Engine& e, Turn& t) { return e.ExplainPlacement(t, h.admin, spec); });
  EXPECT_EQ(explained->eligible, 1u);
  EXPECT_EQ(explained->error_code, "WORKER_UNAVAILABLE");
}

}  // namespace
}  // namespace bunker::controller
