#include "controller/engine/worker_admin.h"

#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

class WorkerAdmins : public testing::Test {
 protected:
  void SetUp() override {
    w1 = h.AddWorker("w1");
    w2 = h.AddWorker("w2");
    image = h.Register("a");
    h.MakeGroup("g", {"a"}, {w1, w2});
    h.MakeReady(w1, image->id);
    h.MakeReady(w2, image->id);
  }

  RowPtr<Bunker> RunningOn(const std::string& worker) {
    for (int i = 0; i < 20; ++i) {
      const RowPtr<Bunker> row = *h.Create("a", Small);
      h.ObserveBunker(row->worker_id, row->id, BunkerStatus::kRunning);
      if (row->worker_id == worker) return h.Get(row->id);
    }
    ADD_FAILURE() << "no bunker came to " << worker;
    return nullptr;
  }
  static void Small(CreateBunkerSpec& spec) {
    spec.cpu_millicores = 50;
    spec.memory_mb = 64;
  }
  WorkerView View(const std::string& id) {
    return *h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, id); });
  }
  absl::Status Drain(const std::string& id, DrainSpec spec) {
    return h.Do([&](Engine& e, Turn& t) { return e.worker_admin().Drain(t, h.admin, id, spec); })
        .status();
  }
  absl::StatusOr<WorkerView> Remove(const std::string& id, bool force) {
    return h.Do([&](Engine& e, Turn& t) { return e.worker_admin().Remove(t, h.admin, id, force); });
  }

  Harness h;
  std::string w1, w2;
  RowPtr<Image> image;
};

TEST_F(WorkerAdmins, DrainKeepsNewBunkersAwayAndWaits) {
  const RowPtr<Bunker> row = RunningOn(w1);
  ASSERT_TRUE(Drain(w1, {absl::Seconds(60), DrainThen::kWait}).ok());
  EXPECT_EQ(View(w1).worker->status, WorkerStatus::kDraining);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ((*h.Create("a", Small))->worker_id, w2);
  }
  h.Advance(absl::Seconds(100));  // the deadline has passed: it waits
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  // Silent and back: still draining.
  h.Silence(w1);
  h.Advance(absl::Seconds(40));
  EXPECT_EQ(View(w1).worker->status, WorkerStatus::kOffline);
  h.Connect(w1);
  EXPECT_EQ(View(w1).worker->status, WorkerStatus::kDraining);
  h.Must([&](Engine& e, Turn& t) { return e.worker_admin().Resume(t, h.admin, w1); });
  EXPECT_EQ(View(w1).worker->status, WorkerStatus::kOnline);
  EXPECT_FALSE(View(w1).worker->draining);
}

TEST_F(WorkerAdmins, AtTheDeadlineADrainThatStopsStops) {
  const RowPtr<Bunker> row = RunningOn(w1);
  const RowPtr<Bunker> other = RunningOn(w2);
  ASSERT_TRUE(Drain(w1, {absl::Seconds(60), DrainThen::kStop}).ok());
  h.Advance(absl::Seconds(58));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kRunning);
  h.Advance(absl::Seconds(3));
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopping);
  EXPECT_TRUE(h.BunkerRow(w1, row->id)->stopped);
  h.ObserveBunker(w1, row->id, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kStopped);
  EXPECT_EQ(h.Get(row->id)->status_reason, "WORKER_DRAINED");
  EXPECT_TRUE(h.Get(row->id)->terminated_at.has_value());
  EXPECT_EQ(h.Get(other->id)->status, BunkerStatus::kRunning);
}

TEST_F(WorkerAdmins, ADrainSurvivesARestartOfTheController) {
  const RowPtr<Bunker> row = RunningOn(w1);
  ASSERT_TRUE(Drain(w1, {absl::Seconds(60), DrainThen::kStop}).ok());
  Harness again({}, false, h.store->rows(), h.loop.Now() + absl::Seconds(5));
  again.Connect(w1);
  again.Connect(w2);
  const auto status = [&] {
    return again.Do([&](Engine& e, Turn&) { return e.FindWorker(again.admin, w1); })
        ->worker->status;
  };
  EXPECT_EQ(status(), WorkerStatus::kDraining);
  again.Advance(absl::Seconds(50));
  EXPECT_EQ(again.Get(row->id)->status, BunkerStatus::kRunning);
  again.Advance(absl::Seconds(10));
  EXPECT_EQ(again.Get(row->id)->status, BunkerStatus::kStopping);
}

TEST_F(WorkerAdmins, LabelsWinOverTheAgentsAndPlaceAtOnce) {
  h.Must([&](Engine& e, Turn& t) {
    return e.worker_admin().SetLabels(t, h.admin, w2, {{"metro", "fra"}});
  });
  const auto create = [&](const std::string& metro) {
    return h.Create("a", [&](CreateBunkerSpec& s) { s.worker_labels = {{"metro", metro}}; });
  };
  EXPECT_EQ((*create("fra"))->worker_id, w2);
  EXPECT_EQ(ReasonOf(create("ams").status()), "WORKER_UNAVAILABLE");
  h.Must([&](Engine& e, Turn& t) { return e.worker_admin().SetLabels(t, h.admin, w2, {}); });
  EXPECT_EQ(ReasonOf(create("fra").status()), "WORKER_UNAVAILABLE");
}

TEST_F(WorkerAdmins, RemovalTakesEverythingButByForceNoBunkers) {
  const RowPtr<Bunker> row = RunningOn(w1);
  EXPECT_EQ(ReasonOf(Remove(w1, false).status()), "RESOURCE_IN_USE");
  const auto credential = View(w1).worker->credential_sha256;
  ASSERT_TRUE(Remove(w1, true).ok());
  EXPECT_EQ(h.Get(row->id)->status, BunkerStatus::kFailed);
  EXPECT_EQ(h.Get(row->id)->status_reason, "WORKER_REMOVED");
  EXPECT_FALSE(h.engine->AuthenticateWorker(credential).ok());
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn&) { return e.FindWorker(h.admin, w1); }).status()),
            "NOT_FOUND");
  for (const auto& [key, desired] : h.desired) EXPECT_NE(desired->worker_id, w1) << key;
  // What it still says is heard by nobody, and does no harm.
  h.Run([&](Engine& e, Turn& t) {
    BunkerObservation seen;
    seen.bunker_id = row->id;
    seen.incarnation = 1;
    seen.status = BunkerStatus::kRunning;
    e.OnObservation(t, w1, {BunkerRowName(row->id), 77, seen});
    e.OnObservationsSynced(t, w1, {});
    e.OnObservationRemoved(t, w1, ImageRowName(image->id));
  });
  // Free of bunkers, it goes without force; the image is then on no worker.
  for (const auto& one : h.engine->ListBunkers(h.admin, {}, {200, ""}).rows) {
    h.Must([&](Engine& e, Turn& t) { return e.DeleteBunker(t, h.admin, one->id); });
    if (one->live()) h.ObserveBunker(w2, one->id, BunkerStatus::kStopped);
  }
  ASSERT_TRUE(Remove(w2, false).ok());
  EXPECT_EQ(ReasonOf(h.Create("a").status()), "NO_SUITABLE_WORKER");
  // A worker of the same name is another one.
  EXPECT_NE(h.AddWorker("w1"), w1);
}

TEST_F(WorkerAdmins, ARemovalThatFindsNoRoomOnDiskIsTakenBackWhole) {
  RunningOn(w1);
  const MemStore::Rows rows = h.store->rows();
  h.store->SetFull(true);
  h.core->Post(
      [&](Engine& e, Turn& t) { EXPECT_TRUE(e.worker_admin().Remove(t, h.admin, w1, true).ok()); });
  h.Settle();
  h.store->SetFull(false);
  EXPECT_EQ(h.store->rows(), rows);
  const absl::Status status = h.engine->CheckInvariants();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(View(w1).worker->name, "w1");
  RunningOn(w1);
}

TEST_F(WorkerAdmins, TokensAreSeenAndDeletedByTheirOwners) {
  Caller tenant = h.admin;
  tenant.role = Role::kTenantAdmin;
  Caller other = tenant;
  other.tenant_id = "tnt_other";
  const auto make = [&](const Caller& caller, char digit) {
    return *h.Do([&](Engine& e, Turn& t) {
      CreateJoinTokenSpec spec;
      spec.worker_name = "mine";
      spec.sha256 = std::string(64, digit);
      spec.ownership = *e.worker_admin().OwnerFor(caller, Scope::kTenant, "", "");
      spec.shared = false;
      return e.CreateJoinToken(t, spec);
    });
  };
  const RowPtr<JoinToken> token = make(tenant, 'a');
  const auto find = [&](const Caller& caller) {
    return h.Do([&](Engine& e, Turn&) { return e.worker_admin().FindToken(caller, token->id); })
        .ok();
  };
  EXPECT_TRUE(find(tenant));
  EXPECT_TRUE(find(h.admin));
  EXPECT_FALSE(find(other));
  const auto listed = h.Do([&](Engine& e, Turn&) {
    return e.worker_admin().ListTokens(other, {50, ""}).rows.size();
  });
  EXPECT_EQ(listed, 0u);
  h.Must([&](Engine& e, Turn& t) { return e.worker_admin().DeleteToken(t, tenant, token->id); });
  const auto join = h.Do(
      [&](Engine& e, Turn& t) { return e.Join(t, token->sha256, "mine", std::string(64, 'b')); });
  EXPECT_EQ(ReasonOf(join.status()), "AUTH_TOKEN_INVALID");
  // The scopes above the role, and another's tenant.
  const auto owner = [&](const Caller& caller, Scope scope, const std::string& tenant_id) {
    return ReasonOf(h.Do([&](Engine& e, Turn&) {
                       return e.worker_admin().OwnerFor(caller, scope, tenant_id, "");
                     }).status());
  };
  EXPECT_EQ(owner(tenant, Scope::kPlatform, ""), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(owner(tenant, Scope::kPartner, ""), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(owner(other, Scope::kTenant, h.admin.tenant_id), "NOT_FOUND");
  EXPECT_EQ(owner(h.admin, Scope::kTenant, "tnt_none"), "NOT_FOUND");
}

TEST_F(WorkerAdmins, ATenantsWorkerIsItsAlone) {
  Caller tenant = h.admin;
  tenant.role = Role::kTenantAdmin;
  Caller other = tenant;
  other.tenant_id = "tnt_other";
  const std::string secret(64, 'c');
  h.Must([&](Engine& e, Turn& t) {
    CreateJoinTokenSpec spec;
    spec.worker_name = "w1";  // the platform has one of that name
    spec.sha256 = secret;
    spec.ownership = *e.worker_admin().OwnerFor(tenant, Scope::kTenant, "", "");
    return e.CreateJoinToken(t, spec);
  });
  const auto joined =
      h.Do([&](Engine& e, Turn& t) { return e.Join(t, secret, "w1", std::string(64, 'd')); });
  ASSERT_TRUE(joined.ok()) << joined.status();
  const std::string id = (*joined)->id;
  EXPECT_NE(id, w1);
  h.Connect(id);
  const auto see = [&](const Caller& caller) {
    return h.Do([&](Engine& e, Turn&) { return e.FindWorker(caller, id); }).ok();
  };
  EXPECT_TRUE(see(tenant));
  EXPECT_FALSE(see(other));
  // Its own comes first by name; the other one sees the shared one.
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.FindWorker(tenant, "w1"); })->worker->id, id);
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.FindWorker(other, "w1"); })->worker->id, w1);
  // Seen, but the platform's.
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.worker_admin().Drain(t, other, w1, {});
                      }).status()),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.worker_admin().Drain(t, other, id, {});
                      }).status()),
            "NOT_FOUND");
}

TEST_F(WorkerAdmins, AStatusFilterFillsItsPages) {
  for (int i = 3; i <= 12; ++i) h.AddWorker("w" + std::to_string(i));
  for (int i = 3; i <= 12; i += 2) ASSERT_TRUE(Drain("w" + std::to_string(i), {}).ok());
  PageSpec page{3, ""};
  std::vector<size_t> sizes;
  bool has_more = true;
  while (has_more) {
    const auto views = h.Do([&](Engine& e, Turn&) {
      return e.ListWorkers(h.admin, WorkerStatus::kDraining, page, &has_more);
    });
    sizes.push_back(views.size());
    page.after_id = views.back().worker->id;
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{3, 2}));
}

}  // namespace
}  // namespace bunker::controller
