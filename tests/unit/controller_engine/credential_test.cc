// Registry credentials: whose they are, who may use them, and what a rotation sets off.
#include "controller/engine/credentials.h"

#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

constexpr char kHost[] = "127.0.0.1:5000";

Caller In(const std::string& tenant, const std::string& partner, Role role) {
  Caller caller;
  caller.tenant_id = tenant;
  caller.partner_id = partner;
  caller.role = role;
  caller.user_id = "usr_x";
  return caller;
}

class CredentialTest : public testing::Test {
 protected:
  absl::StatusOr<RowPtr<RegistryCredential>> Store(const Caller& caller, const std::string& name,
                                                   Scope scope = Scope::kTenant,
                                                   const std::string& host = kHost) {
    return h.Do([&](Engine& e, Turn& t) {
      CredentialSpec spec;
      spec.id = e.credentials().NewId(t);
      spec.name = name;
      spec.scope = scope;
      spec.host = host;
      spec.username = "ada";
      spec.sealed = "sealed-1";
      return e.credentials().Create(t, caller, spec);
    });
  }
  absl::StatusOr<RowPtr<Image>> Register(const Caller& caller, const std::string& name,
                                         const std::string& secret, Scope scope = Scope::kTenant) {
    RegisterImageSpec spec;
    spec.name = name;
    spec.build_source.ref = std::string(kHost) + "/library/" + name + ":1";
    spec.size_mib = 64;
    spec.scope = scope;
    spec.pull_secret = secret;
    return h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, caller, spec); });
  }
  std::string Found(const Caller& caller, const std::string& name) {
    const auto row = h.Do([&](Engine& e, Turn&) { return e.credentials().Find(caller, name); });
    return row.ok() ? std::string(NameOf((*row)->ownership.scope)) : ReasonOf(row.status());
  }
  std::string Login(const std::string& worker, const std::string& image) {
    const auto row =
        h.Do([&](Engine& e, Turn&) { return e.credentials().ForWorker(worker, image); });
    return row.ok() ? (*row)->sealed : ReasonOf(row.status());
  }
  void Fail(const std::string& worker, const std::string& image, const std::string& code) {
    h.ObserveImage(worker, image, CacheStatus::kFailed,
                   [&](ImageObservation& seen) { seen.error_code = code; });
  }

  Harness h;
  const Caller a = In("tnt_a", "ptr_1", Role::kTenantAdmin);
  const Caller b = In("tnt_b", "ptr_1", Role::kTenantAdmin);
  const Caller c = In("tnt_c", "ptr_2", Role::kTenantAdmin);
  const Caller p = In("tnt_p", "ptr_1", Role::kPartnerAdmin);
};

TEST_F(CredentialTest, ScopesNestAndTheNearestNameWins) {
  ASSERT_TRUE(Store(a, "mine").ok());
  ASSERT_TRUE(Store(p, "ours", Scope::kPartner).ok());
  ASSERT_TRUE(Store(h.admin, "all", Scope::kPlatform).ok());
  EXPECT_EQ(ReasonOf(Store(a, "mine").status()), "SLUG_CONFLICT");
  EXPECT_EQ(ReasonOf(Store(a, "x", Scope::kPartner).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(ReasonOf(Store(p, "x", Scope::kPlatform).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Found(a, "mine"), "tenant");
  EXPECT_EQ(Found(b, "mine"), "NOT_FOUND");
  EXPECT_EQ(Found(b, "ours"), "partner");
  EXPECT_EQ(Found(c, "ours"), "NOT_FOUND");
  EXPECT_EQ(Found(c, "all"), "platform");
  ASSERT_TRUE(Store(c, "all").ok());
  EXPECT_EQ(Found(c, "all"), "tenant");
  const auto remove = [&](const Caller& caller, const std::string& name) {
    return ReasonOf(
        h.Do([&](Engine& e, Turn& t) { return e.credentials().Delete(t, caller, name); }));
  };
  EXPECT_EQ(remove(b, "ours"), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(remove(b, "mine"), "NOT_FOUND");
  EXPECT_EQ(remove(a, "mine"), "");
  EXPECT_EQ(Found(a, "mine"), "NOT_FOUND");
  const auto list = h.Do([&](Engine& e, Turn&) { return e.credentials().List(b, {}); });
  EXPECT_EQ(list.rows.size(), 2u);
}

TEST_F(CredentialTest, AnImageUsesWhatItsOwnerMay) {
  ASSERT_TRUE(Store(a, "mine").ok());
  ASSERT_TRUE(Store(a, "hub", Scope::kTenant, "docker.io").ok());
  ASSERT_TRUE(Store(p, "ours", Scope::kPartner).ok());
  ASSERT_TRUE(Store(h.admin, "all", Scope::kPlatform).ok());
  EXPECT_TRUE(Register(a, "one", "mine").ok());
  EXPECT_TRUE(Register(b, "one", "ours").ok());
  EXPECT_TRUE(Register(c, "one", "all").ok());
  const auto refused = [&](const absl::StatusOr<RowPtr<Image>>& image) {
    return ReasonOf(image.status()) == "VALIDATION_ERROR" &&
           std::string(image.status().message()).find("pull_secret") != std::string::npos;
  };
  EXPECT_TRUE(refused(Register(b, "two", "mine"))) << "another tenant's";
  EXPECT_TRUE(refused(Register(c, "two", "ours"))) << "another partner's";
  EXPECT_TRUE(refused(Register(a, "two", "hub"))) << "another host's";
  EXPECT_TRUE(refused(Register(p, "two", "mine", Scope::kPartner)));
  // An image of the partner's must not be pulled with what one tenant has.
  ASSERT_TRUE(Store(p, "own").ok());
  EXPECT_TRUE(refused(Register(p, "two", "own", Scope::kPartner)));
  EXPECT_TRUE(Register(p, "two", "ours", Scope::kPartner).ok());
  EXPECT_TRUE(refused(Register(h.admin, "two", "ours", Scope::kPlatform)));
  const auto gone =
      h.Do([&](Engine& e, Turn& t) { return e.credentials().Delete(t, h.admin, "all"); });
  EXPECT_EQ(ReasonOf(gone), "RESOURCE_IN_USE");
  EXPECT_NE(std::string(gone.message()).find("one"), std::string::npos);
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, c, "one"); });
  EXPECT_TRUE(
      h.Do([&](Engine& e, Turn& t) { return e.credentials().Delete(t, h.admin, "all"); }).ok());
}

TEST_F(CredentialTest, OnlyAWorkerThatHasTheImageGetsItsLogin) {
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  ASSERT_TRUE(Store(h.admin, "reg").ok());
  const RowPtr<Image> image = *Register(h.admin, "private", "reg");
  const RowPtr<Image> open = *Register(h.admin, "open", "");
  EXPECT_EQ(Login(w1, image->id), "NOT_FOUND") << "nobody wants it yet";
  h.MakeGroup("g", {"private", "open"}, {w1});
  EXPECT_EQ(Login(w1, image->id), "sealed-1");
  EXPECT_EQ(h.ImageRow(w1, image->id)->credential_id, image->credential_id);
  EXPECT_EQ(Login(w2, image->id), "NOT_FOUND");
  EXPECT_EQ(Login(w1, open->id), "NOT_FOUND");
  EXPECT_EQ(Login(w1, "img_x"), "NOT_FOUND");
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, h.admin, "private"); });
  EXPECT_EQ(Login(w1, image->id), "NOT_FOUND") << "it is not this worker's any more";
}

TEST_F(CredentialTest, ATenantsOwnWorkerGetsNoWiderSecret) {
  const std::string token(64, '9');
  h.Must([&](Engine& e, Turn& t) {
    CreateJoinTokenSpec spec;
    spec.worker_name = "theirs";
    spec.sha256 = token;
    spec.ownership = h.admin.ownership();
    return e.CreateJoinToken(t, spec);
  });
  const auto worker =
      h.Do([&](Engine& e, Turn& t) { return e.Join(t, token, "theirs", std::string(64, '8')); });
  ASSERT_TRUE(worker.ok());
  h.Connect((*worker)->id);
  ASSERT_TRUE(Store(h.admin, "wide", Scope::kPlatform).ok());
  ASSERT_TRUE(Store(h.admin, "own").ok());
  const RowPtr<Image> wide = *Register(h.admin, "wide", "wide");
  const RowPtr<Image> own = *Register(h.admin, "own", "own");
  h.MakeGroup("g", {"wide", "own"}, {"theirs"});
  EXPECT_EQ(Login((*worker)->id, wide->id), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Login((*worker)->id, own->id), "sealed-1");
}

TEST_F(CredentialTest, ARotationTriesAgainWhatItCanMend) {
  const std::string w1 = h.AddWorker("w1");
  const std::string w2 = h.AddWorker("w2");
  const auto stored = Store(h.admin, "reg");
  const RowPtr<Image> image = *Register(h.admin, "private", "reg");
  const RowPtr<Image> other = *Register(h.admin, "other", "reg");
  h.MakeGroup("g", {"private", "other"}, {w1, w2});
  Fail(w1, image->id, "REGISTRY_AUTH_FAILED");
  Fail(w2, image->id, "DISK_FULL");
  Fail(w1, other->id, "IMAGE_NOT_FOUND");
  h.Advance(absl::Minutes(20));
  EXPECT_EQ(h.ImageRow(w1, image->id)->attempt, 1u) << "nothing mends itself";
  const auto replace = [&](const std::string& host) {
    return h.Do([&](Engine& e, Turn& t) {
      CredentialSpec spec;
      spec.id = (*stored)->id;
      spec.name = "reg";
      spec.host = host;
      spec.username = "bob";
      spec.sealed = "sealed-2";
      return e.credentials().Replace(t, h.admin, spec);
    });
  };
  EXPECT_EQ(ReasonOf(replace("docker.io").status()), "VALIDATION_ERROR");
  EXPECT_EQ(Login(w1, image->id), "sealed-1") << "a refusal changes nothing";
  ASSERT_TRUE(replace(kHost).ok());
  EXPECT_EQ(Login(w1, image->id), "sealed-2");
  EXPECT_EQ(h.Entry(image->id, w1)->status, CacheStatus::kPending);
  EXPECT_EQ(h.ImageRow(w1, image->id)->attempt, 2u);
  EXPECT_EQ(h.ImageRow(w2, image->id)->attempt, 1u) << "a login is no room on a disk";
  EXPECT_EQ(h.Entry(other->id, w1)->attempt, 2u);
  // The attempt under way began with the login of before: its failure is no news.
  h.Run([&](Engine& e, Turn& t) {
    ImageObservation stale;
    stale.image_id = image->id;
    stale.attempt = 1;
    stale.status = CacheStatus::kFailed;
    stale.error_code = "REGISTRY_AUTH_FAILED";
    e.OnObservation(t, w1, {ImageRowName(image->id), 99, stale});
  });
  EXPECT_EQ(h.Entry(image->id, w1)->status, CacheStatus::kPending);
}

TEST_F(CredentialTest, AnotherPullSecretReachesTheWorkers) {
  const std::string w1 = h.AddWorker("w1");
  ASSERT_TRUE(Store(h.admin, "one").ok());
  ASSERT_TRUE(Store(h.admin, "two").ok());
  const RowPtr<Image> image = *Register(h.admin, "private", "one");
  h.MakeGroup("g", {"private"}, {w1});
  Fail(w1, image->id, "REGISTRY_AUTH_FAILED");
  const auto change = [&](const std::string& secret) {
    UpdateImageSpec spec;
    spec.pull_secret = secret;
    return h.Do([&](Engine& e, Turn& t) { return e.UpdateImage(t, h.admin, "private", spec); });
  };
  EXPECT_EQ(ReasonOf(change("three").status()), "VALIDATION_ERROR");
  const auto changed = change("two");
  ASSERT_TRUE(changed.ok());
  EXPECT_EQ(h.ImageRow(w1, image->id)->credential_id, (*changed)->credential_id);
  EXPECT_EQ(h.ImageRow(w1, image->id)->attempt, 2u);
  EXPECT_TRUE(
      h.Do([&](Engine& e, Turn& t) { return e.credentials().Delete(t, h.admin, "one"); }).ok());
  ASSERT_TRUE(change("").ok());
  EXPECT_EQ(h.ImageRow(w1, image->id)->credential_id, "");
  EXPECT_EQ(Login(w1, image->id), "NOT_FOUND");
}

}  // namespace
}  // namespace bunker::controller
