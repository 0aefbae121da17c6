// Who may change whom, and what a key holds.
#include "controller/engine/accounts.h"

#include "controller/model/permissions.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

constexpr char kCreate[] = "scaibunker:create";
constexpr char kPlatform[] = "scaibunker:admin:platform";
constexpr char kTransit[] = "scaibunker:network:transit";

class AccountsTest : public testing::Test {
 protected:
  // The root of it all: the bootstrap's super admin.
  AccountsTest() { super_ = As(std::string(64, '1')); }

  Caller As(const std::string& sha256) {
    const auto auth = h_.Do([&](Engine& e, Turn& t) { return e.Authenticate(t, sha256); });
    EXPECT_TRUE(auth.ok()) << auth.status();
    Caller caller;
    if (!auth.ok()) return caller;
    caller.user_id = auth->user->id;
    caller.tenant_id = auth->tenant->id;
    caller.partner_id = auth->partner->id;
    caller.key_id = auth->key->id;
    caller.role = auth->role;
    caller.permissions = auth->permissions;
    caller.sees_all_bunkers =
        auth->role == Role::kTenantViewer || caller.permissions.count("scaibunker:admin") > 0;
    return caller;
  }
  std::string Code(const absl::Status& status) { return status.ok() ? "ok" : ReasonOf(status); }

  template <typename F>
  auto Call(F call) {
    return h_.Do([&](Engine& e, Turn& t) { return call(e.accounts(), t); });
  }
  RowPtr<Tenant> NewTenant(const std::string& name, const std::string& partner = "") {
    auto row = Call([&](Accounts& a, Turn& t) {
      return a.CreateTenant(t, super_, {name, partner, TenantStatus::kActive});
    });
    EXPECT_TRUE(row.ok()) << row.status();
    return *row;
  }
  RowPtr<User> NewUser(const Caller& by, const std::string& name, Role role,
                       const std::string& tenant = "") {
    auto row = Call([&](Accounts& a, Turn& t) {
      return a.CreateUser(t, by, {name, role, UserStatus::kActive, tenant});
    });
    EXPECT_TRUE(row.ok()) << row.status();
    return *row;
  }
  absl::StatusOr<RowPtr<ApiKey>> TryKey(const Caller& by, const std::string& user,
                                        std::optional<std::set<std::string>> permissions = {},
                                        std::string* sha256 = nullptr) {
    CreateApiKeySpec spec;
    spec.name = "k";
    spec.sha256 = std::string(60, 'a') + std::to_string(1000 + ++keys_);
    spec.user_id = user;
    spec.permissions = std::move(permissions);
    if (sha256 != nullptr) *sha256 = spec.sha256;
    return Call([&](Accounts& a, Turn& t) { return a.CreateApiKey(t, by, spec); });
  }
  // A new user with a key of its own.
  Caller NewCaller(const std::string& name, Role role, const std::string& tenant = "",
                   std::string* sha256 = nullptr) {
    const RowPtr<User> user = NewUser(super_, name, role, tenant);
    std::string hash;
    const auto key = TryKey(super_, user->id, std::nullopt, &hash);
    EXPECT_TRUE(key.ok()) << key.status();
    if (sha256 != nullptr) *sha256 = hash;
    return As(hash);
  }
  absl::Status Update(const Caller& by, const std::string& user, UpdateUserSpec spec) {
    return Call([&](Accounts& a, Turn& t) { return a.UpdateUser(t, by, user, spec); }).status();
  }
  absl::StatusOr<RowPtr<UserGroup>> NewGroup(const Caller& by, const std::string& name,
                                             const std::string& parent = "",
                                             std::set<std::string> permissions = {}) {
    return Call([&](Accounts& a, Turn& t) {
      return a.CreateUserGroup(t, by, {name, parent, permissions, ""});
    });
  }

  Harness h_;
  Caller super_;
  int keys_ = 0;
};

TEST_F(AccountsTest, NobodyMakesAnythingStronger) {
  const Caller admin = NewCaller("admin2", Role::kTenantAdmin);
  const Caller partner = NewCaller("partner", Role::kPartnerAdmin);
  const RowPtr<User> user = NewUser(super_, "user", Role::kTenantUser);
  // A tenant_admin makes neither itself nor another a partner_admin; a partner_admin no
  // super_admin.
  EXPECT_EQ(Code(Update(admin, admin.user_id, {{}, Role::kPartnerAdmin, {}})),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(Update(admin, user->id, {{}, Role::kPartnerAdmin, {}})),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(Update(partner, user->id, {{}, Role::kSuperAdmin, {}})),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(Update(admin, user->id, {{}, Role::kTenantAdmin, {}})), "ok");
  const auto create = [&](const Caller& by, Role role) {
    return Code(Call([&](Accounts& a, Turn& t) {
                  return a.CreateUser(
                      t, by, {"n" + std::to_string(++keys_), role, UserStatus::kActive, ""});
                }).status());
  };
  EXPECT_EQ(create(admin, Role::kTenantAdmin), "ok");
  EXPECT_EQ(create(admin, Role::kPartnerAdmin), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(create(partner, Role::kPartnerAdmin), "ok");
  EXPECT_EQ(create(partner, Role::kSuperAdmin), "AUTHZ_PERMISSION_DENIED");
  // Nor is a stronger one disabled, renamed or deleted.
  EXPECT_EQ(Code(Update(admin, partner.user_id, {{}, {}, UserStatus::kDisabled})),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(Call([&](Accounts& a, Turn& t) {
                   return a.DeleteUser(t, admin, super_.user_id);
                 }).status()),
            "AUTHZ_PERMISSION_DENIED");
  // Permissions that one does not hold are not granted.
  const auto grant = [&](const Caller& by, std::set<std::string> permissions) {
    return Code(Call([&](Accounts& a, Turn& t) {
                  return a.SetPermissions(t, by, user->id, permissions);
                }).status());
  };
  EXPECT_EQ(grant(admin, {kPlatform}), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(grant(admin, {kTransit}), "ok");
  EXPECT_EQ(grant(super_, {kPlatform}), "ok");
  // Now the user is stronger than its administrator.
  EXPECT_EQ(grant(admin, {}), "AUTHZ_PERMISSION_DENIED");
}

TEST_F(AccountsTest, KeysAreNeverStrongerThanWhatMintsThem) {
  const Caller admin = NewCaller("admin2", Role::kTenantAdmin);
  const RowPtr<User> user = NewUser(super_, "user", Role::kTenantUser);
  EXPECT_EQ(Code(TryKey(admin, super_.user_id).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(TryKey(admin, super_.user_id, {{kCreate}}).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(TryKey(admin, "", {{kPlatform}}).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(TryKey(admin, user->id, {{kTransit}}).status()), "VALIDATION_ERROR");

  // A restricted key mints nothing beyond itself, not even for its own user.
  std::string hash;
  ASSERT_TRUE(TryKey(admin, "", {{kCreate, "scaibunker:admin:tenant"}}, &hash).ok());
  const Caller narrow = As(hash);
  EXPECT_EQ(narrow.permissions, (std::set<std::string>{kCreate, "scaibunker:admin:tenant"}));
  EXPECT_EQ(Code(TryKey(narrow, "").status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(TryKey(narrow, user->id).status()), "AUTHZ_PERMISSION_DENIED");
  const auto minted = TryKey(narrow, "", {{kCreate}});
  ASSERT_TRUE(minted.ok()) << minted.status();
  EXPECT_EQ((*minted)->max_role, Role::kTenantAdmin);

  // What an administrator minted for a user does not grow with the user.
  ASSERT_TRUE(TryKey(admin, user->id, {}, &hash).ok());
  EXPECT_EQ(As(hash).role, Role::kTenantUser);
  ASSERT_EQ(Code(Update(super_, user->id, {{}, Role::kSuperAdmin, {}})), "ok");
  EXPECT_EQ(As(hash).role, Role::kTenantUser);
  EXPECT_EQ(As(hash).permissions, PermissionsOf(Role::kTenantUser));
  // But it shrinks with it.
  ASSERT_EQ(Code(Update(super_, user->id, {{}, Role::kTenantViewer, {}})), "ok");
  EXPECT_EQ(As(hash).role, Role::kTenantViewer);
  EXPECT_TRUE(As(hash).permissions.empty());
}

TEST_F(AccountsTest, ASuperAdminsKeyWithoutThePlatformIsAPartnerAdmins) {
  std::string hash;
  std::set<std::string> rest = PermissionsOf(Role::kTenantAdmin);
  ASSERT_TRUE(TryKey(super_, "", rest, &hash).ok());
  const Caller narrow = As(hash);
  EXPECT_EQ(narrow.role, Role::kPartnerAdmin);
  EXPECT_EQ(Code(Update(narrow, super_.user_id, {"x", {}, {}})), "AUTHZ_PERMISSION_DENIED");
  const auto partner = Call([&](Accounts& a, Turn& t) { return a.CreatePartner(t, "other"); });
  const RowPtr<Tenant> foreign = NewTenant("foreign", (*partner)->id);
  EXPECT_EQ(
      Code(Call([&](Accounts& a, Turn&) { return a.FindTenant(narrow, foreign->id); }).status()),
      "NOT_FOUND");
}

TEST_F(AccountsTest, GroupsNestAndNeverInThemselves) {
  const auto a = NewGroup(super_, "a", "", {kTransit});
  const auto b = NewGroup(super_, "b", (*a)->id);
  const auto c = NewGroup(super_, "c", (*b)->id, {"scaibunker:l2_transparency"});
  ASSERT_TRUE(c.ok());
  const auto move = [&](const std::string& id, const std::string& parent) {
    UpdateUserGroupSpec spec;
    spec.parent_id = parent;
    return Code(Call([&](Accounts& accounts, Turn& t) {
                  return accounts.UpdateUserGroup(t, super_, id, spec);
                }).status());
  };
  EXPECT_EQ(move((*a)->id, (*c)->id), "VALIDATION_ERROR");
  EXPECT_EQ(move((*a)->id, (*a)->id), "VALIDATION_ERROR");
  EXPECT_EQ(move((*a)->id, (*b)->id), "VALIDATION_ERROR");
  EXPECT_EQ(move((*a)->id, "grp_" + std::string(32, '0')), "NOT_FOUND");

  // A member of c holds c's and a's; with c moved out, c's alone.
  std::string hash;
  const Caller user = NewCaller("user", Role::kTenantUser, "", &hash);
  const auto add = [&](const Caller& by) {
    return Code(Call([&](Accounts& accounts, Turn& t) {
                  return accounts.AddMember(t, by, (*c)->id, user.user_id);
                }).status());
  };
  // The key was bound at its minting, so ask for what the user holds.
  const auto holds = [&](const std::string& permission) {
    return Call([&](Accounts& accounts, Turn&) {
             const auto row = accounts.FindUser(super_, user.user_id);
             return accounts.PermissionsOfUser(**row);
           }).count(permission) > 0;
  };
  EXPECT_FALSE(holds(kTransit));
  EXPECT_EQ(add(super_), "ok");
  EXPECT_TRUE(holds(kTransit));
  EXPECT_TRUE(holds("scaibunker:l2_transparency"));
  EXPECT_EQ(move((*c)->id, ""), "ok");
  EXPECT_FALSE(holds(kTransit));
  EXPECT_TRUE(holds("scaibunker:l2_transparency"));
  EXPECT_EQ(move((*a)->id, (*c)->id), "ok");
  EXPECT_EQ(Call([&](Accounts& accounts, Turn&) { return accounts.WithNested((*c)->id); }),
            (std::set<std::string>{(*a)->id, (*b)->id, (*c)->id}));

  // One who does not hold what a group grants neither changes it nor adds to it.
  const auto strong = NewGroup(super_, "strong", "", {kPlatform});
  const Caller admin = NewCaller("admin2", Role::kTenantAdmin);
  EXPECT_EQ(Code(NewGroup(admin, "x", (*strong)->id).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(NewGroup(admin, "x", "", {kPlatform}).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(Code(Call([&](Accounts& accounts, Turn& t) {
                   return accounts.AddMember(t, admin, (*strong)->id, admin.user_id);
                 }).status()),
            "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(add(admin), "ok");
}

TEST_F(AccountsTest, GroupsNestSixteenDeep) {
  std::string parent;
  for (int depth = 1; depth <= 16; ++depth) {
    const auto group = NewGroup(super_, "g" + std::to_string(depth), parent);
    ASSERT_TRUE(group.ok()) << group.status();
    parent = (*group)->id;
  }
  EXPECT_EQ(Code(NewGroup(super_, "too deep", parent).status()), "VALIDATION_ERROR");
}

TEST_F(AccountsTest, StoppingWorksAtOnce) {
  const RowPtr<Tenant> tenant = NewTenant("t2");
  std::string hash;
  const Caller user = NewCaller("user", Role::kTenantAdmin, tenant->id, &hash);
  const auto code = [&] {
    return Code(h_.Do([&](Engine& e, Turn& t) { return e.Authenticate(t, hash); }).status());
  };
  EXPECT_EQ(code(), "ok");
  ASSERT_EQ(Code(Update(super_, user.user_id, {{}, {}, UserStatus::kDisabled})), "ok");
  EXPECT_EQ(code(), "AUTH_TOKEN_INVALID");
  ASSERT_EQ(Code(Update(super_, user.user_id, {{}, {}, UserStatus::kActive})), "ok");
  EXPECT_EQ(code(), "ok");
  const auto suspend = [&](const Caller& by, TenantStatus status) {
    return Code(Call([&](Accounts& a, Turn& t) {
                  return a.UpdateTenant(t, by, tenant->id, {{}, status});
                }).status());
  };
  EXPECT_EQ(suspend(user, TenantStatus::kSuspended), "RESOURCE_IN_USE");  // its own
  EXPECT_EQ(suspend(super_, TenantStatus::kSuspended), "ok");
  EXPECT_EQ(code(), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(suspend(super_, TenantStatus::kActive), "ok");
  EXPECT_EQ(code(), "ok");
  const auto erase = [&] {
    return Code(
        Call([&](Accounts& a, Turn& t) { return a.DeleteTenant(t, super_, tenant->id); }).status());
  };
  EXPECT_EQ(erase(), "ok");
  EXPECT_EQ(code(), "AUTH_TOKEN_INVALID");
  EXPECT_EQ(erase(), "NOT_FOUND");
}

TEST_F(AccountsTest, AUserWithLiveBunkersStays) {
  const std::string worker = h_.AddWorker("w1");
  const RowPtr<Image> image = h_.Register("r");
  h_.MakeGroup("g", {"r"}, {"w1"});
  h_.MakeReady(worker, image->id);
  std::string hash;
  const Caller user = NewCaller("user", Role::kTenantUser, "", &hash);
  CreateBunkerSpec spec;
  spec.image = "r";
  const auto bunker =
      h_.Do([&](Engine& e, Turn& t) { return e.CreateBunker(t, user, spec, nullptr); });
  ASSERT_TRUE(bunker.ok()) << bunker.status();
  const auto erase = [&] {
    return Code(
        Call([&](Accounts& a, Turn& t) { return a.DeleteUser(t, super_, user.user_id); }).status());
  };
  EXPECT_EQ(erase(), "RESOURCE_IN_USE");
  // Another user of the tenant sees nothing of it; a viewer sees it and can do no more.
  const Caller other = NewCaller("other", Role::kTenantUser);
  Caller viewer = NewCaller("viewer", Role::kTenantViewer);
  const auto end = [&](const Caller& by) {
    return Code(
        h_.Do([&](Engine& e, Turn& t) { return e.DeleteBunker(t, by, (*bunker)->id); }).status());
  };
  EXPECT_EQ(end(other), "NOT_FOUND");
  EXPECT_EQ(end(viewer), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(end(user), "ok");
  h_.ObserveBunker(worker, (*bunker)->id, BunkerStatus::kStopped);
  EXPECT_EQ(erase(), "ok");
  EXPECT_EQ(Code(h_.Do([&](Engine& e, Turn& t) { return e.Authenticate(t, hash); }).status()),
            "AUTH_TOKEN_INVALID");
}

TEST_F(AccountsTest, TenThousandMembers) {
  const auto group = NewGroup(super_, "big", "", {kTransit});
  std::vector<std::string> users;
  for (int i = 0; i < 10'000; ++i) {
    h_.core->Post([&, i](Engine& e, Turn& t) {
      const auto user = e.accounts().CreateUser(
          t, super_, {"u" + std::to_string(i), Role::kTenantUser, UserStatus::kActive, ""});
      ASSERT_TRUE(user.ok());
      ASSERT_TRUE(e.accounts().AddMember(t, super_, (*group)->id, (*user)->id).ok());
    });
  }
  h_.Settle();
  EXPECT_EQ(Call([&](Accounts& a, Turn&) { return a.MemberCount((*group)->id); }), 10'000u);
  PageSpec page;
  page.limit = 200;
  size_t seen = 0;
  while (true) {
    const auto found = Call([&](Accounts& a, Turn&) {
      return a.ListUsers(super_, {"", (*group)->id}, page);
    });
    seen += found->rows.size();
    if (!found->has_more) break;
    page.after_id = found->rows.back()->id;
  }
  EXPECT_EQ(seen, 10'000u);
  ASSERT_TRUE(
      Call([&](Accounts& a, Turn& t) { return a.DeleteUserGroup(t, super_, (*group)->id); }).ok());
  EXPECT_EQ(Call([&](Accounts& a, Turn&) { return a.MemberCount((*group)->id); }), 0u);
}

TEST_F(AccountsTest, AccountsSurviveARestart) {
  const auto group = NewGroup(super_, "g", "", {kTransit});
  std::string hash;
  const Caller user = NewCaller("ünï", Role::kTenantUser, "", &hash);
  ASSERT_TRUE(Call([&](Accounts& a, Turn& t) {
                return a.AddMember(t, super_, (*group)->id, user.user_id);
              }).ok());
  Harness again({}, false, h_.store->rows());
  const auto row =
      again.Do([&](Engine& e, Turn&) { return e.accounts().FindUser(super_, user.user_id); });
  ASSERT_TRUE(row.ok());
  EXPECT_EQ((*row)->name, "ünï");
  EXPECT_EQ(again.Do([&](Engine& e, Turn&) { return e.accounts().PermissionsOfUser(**row); })
                .count(kTransit),
            1u);
}

}  // namespace
}  // namespace bunker::controller
