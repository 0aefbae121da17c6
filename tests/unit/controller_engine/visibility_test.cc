#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

Caller In(const std::string& tenant, const std::string& partner, Role role,
          const std::string& user = "usr_x") {
  Caller caller;
  caller.tenant_id = tenant;
  caller.partner_id = partner;
  caller.role = role;
  caller.user_id = user;
  caller.sees_all_bunkers = role != Role::kTenantUser;
  return caller;
}

absl::StatusOr<RowPtr<Image>> Register(Harness& h, const Caller& caller, const std::string& name,
                                       Scope scope) {
  RegisterImageSpec spec;
  spec.name = name;
  spec.scope = scope;
  spec.size_mib = 64;
  return h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, caller, spec); });
}

TEST(Visibility, ScopesNest) {
  Harness h;
  const Caller a = In("tnt_a", "ptr_1", Role::kTenantAdmin);
  const Caller b = In("tnt_b", "ptr_1", Role::kTenantAdmin);
  const Caller c = In("tnt_c", "ptr_2", Role::kTenantAdmin);
  const Caller p1 = In("tnt_p", "ptr_1", Role::kPartnerAdmin);
  ASSERT_TRUE(Register(h, a, "mine", Scope::kTenant).ok());
  ASSERT_TRUE(Register(h, p1, "ours", Scope::kPartner).ok());
  ASSERT_TRUE(Register(h, h.admin, "all", Scope::kPlatform).ok());
  EXPECT_EQ(ReasonOf(Register(h, a, "x", Scope::kPartner).status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(ReasonOf(Register(h, p1, "x", Scope::kPlatform).status()),
            "AUTHZ_PERMISSION_DENIED");
  struct Case {
    const char* who;
    const Caller* caller;
    std::string mine, ours, all;
  };
  const std::string id =
      (*h.Do([&](Engine& e, Turn&) { return e.FindImage(a, "mine"); }))->id;
  const auto find = [&](const Caller& caller, const std::string& ref) {
    const auto found = h.Do([&](Engine& e, Turn&) { return e.FindImage(caller, ref); });
    return found.ok() ? std::string("ok") : ReasonOf(found.status());
  };
  for (const Case& one : std::vector<Case>{{"a", &a, "ok", "ok", "ok"},
                                           {"b", &b, "NOT_FOUND", "ok", "ok"},
                                           {"c", &c, "NOT_FOUND", "NOT_FOUND", "ok"},
                                           {"p1", &p1, "ok", "ok", "ok"},
                                           {"admin", &h.admin, "ok", "NOT_FOUND", "ok"}}) {
    EXPECT_EQ(find(*one.caller, id), one.mine) << one.who;
    EXPECT_EQ(find(*one.caller, "all"), one.all) << one.who;
    EXPECT_EQ(find(*one.caller, "ours"), one.ours) << one.who;
  }
  // Foreign and missing are told apart by nothing.
  const auto foreign = h.Do([&](Engine& e, Turn&) { return e.FindImage(c, id); });
  const std::string missing_id = "img_" + std::string(32, '0');
  const auto missing = h.Do([&](Engine& e, Turn&) { return e.FindImage(c, missing_id); });
  std::string text(foreign.status().message());
  text.replace(text.find(id), id.size(), missing_id);
  EXPECT_EQ(text, std::string(missing.status().message()));
  // Seen but not owned: 403.
  const auto denied = h.Do([&](Engine& e, Turn& t) { return e.Deactivate(t, a, "all"); });
  EXPECT_EQ(ReasonOf(denied.status()), "AUTHZ_PERMISSION_DENIED");
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.ListImages(b, {}, {}); }).rows.size(), 2u);
}

TEST(Visibility, NearestOwnerWinsAName) {
  Harness h;
  const Caller a = In("tnt_a", "ptr_1", Role::kTenantAdmin);
  ASSERT_TRUE(Register(h, h.admin, "r", Scope::kPlatform).ok());
  const auto far = h.Do([&](Engine& e, Turn&) { return e.FindImage(a, "r"); });
  EXPECT_EQ((*far)->ownership.scope, Scope::kPlatform);
  ASSERT_TRUE(Register(h, a, "r", Scope::kTenant).ok());
  const auto near = h.Do([&](Engine& e, Turn&) { return e.FindImage(a, "r"); });
  EXPECT_EQ((*near)->ownership.scope, Scope::kTenant);
}

TEST(Visibility, BunkersBelongToTheirOwnerWithinTheTenant) {
  Harness h;
  const std::string w1 = h.AddWorker("w1");
  const RowPtr<Image> image = *Register(h, h.admin, "r", Scope::kPlatform);
  CreateGroupSpec spec;
  spec.name = "g";
  spec.scope = Scope::kPlatform;
  h.Must([&](Engine& e, Turn& t) { return e.CreateGroup(t, h.admin, spec); });
  h.Must([&](Engine& e, Turn& t) { return e.AttachImage(t, h.admin, "g", "r"); });
  h.Must([&](Engine& e, Turn& t) { return e.AttachWorker(t, h.admin, "g", "w1"); });
  h.MakeReady(w1, image->id);
  const Caller u1 = In("tnt_a", "ptr_1", Role::kTenantUser, "usr_1");
  const Caller u2 = In("tnt_a", "ptr_1", Role::kTenantUser, "usr_2");
  const Caller admin = In("tnt_a", "ptr_1", Role::kTenantAdmin, "usr_3");
  const Caller other = In("tnt_b", "ptr_1", Role::kTenantAdmin, "usr_4");
  CreateBunkerSpec create;
  create.image = "r";
  create.name = "one";
  const auto row =
      h.Do([&](Engine& e, Turn& t) { return e.CreateBunker(t, u1, create, nullptr); });
  ASSERT_TRUE(row.ok()) << row.status();
  const auto find = [&](const Caller& caller, const std::string& ref) {
    return h.Do([&](Engine& e, Turn&) { return e.FindBunker(caller, ref); }).ok();
  };
  EXPECT_TRUE(find(u1, (*row)->id));
  EXPECT_TRUE(find(u1, "one"));
  EXPECT_FALSE(find(u2, (*row)->id));
  EXPECT_FALSE(find(u2, "one"));
  EXPECT_TRUE(find(admin, "one"));
  EXPECT_FALSE(find(other, (*row)->id));
  EXPECT_TRUE(find(h.admin, (*row)->id));
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.ListBunkers(u2, {}, {}); }).rows.size(), 0u);
  EXPECT_EQ(h.Do([&](Engine& e, Turn&) { return e.ListBunkers(u1, {}, {}); }).rows.size(), 1u);
  // Of a shared worker a tenant sees no amounts.
  const auto view = h.Do([&](Engine& e, Turn&) { return e.FindWorker(u1, "w1"); });
  ASSERT_TRUE(view.ok());
  EXPECT_FALSE(view->amounts_visible);
  create.memory_mb = 100'000;
  create.name = "";
  PlacementExplanation why;
  EXPECT_FALSE(
      h.Do([&](Engine& e, Turn& t) { return e.CreateBunker(t, u1, create, &why); }).ok());
  ASSERT_EQ(why.rows.size(), 1u);
  EXPECT_EQ(why.rows[0].shortfall, "not enough memory");
}

TEST(Visibility, IdempotencyKeysBelongToTheTenant) {
  Harness h;
  IdempotencyRecord record;
  record.tenant_id = "tnt_a";
  record.key = std::string("k\0\xff", 3);
  record.request_hash = "h1";
  record.status = 201;
  record.body = std::string("\x00\x01", 2);
  ASSERT_TRUE(h.Do([&](Engine& e, Turn& t) { return e.StoreIdempotent(t, record); }).ok());
  const auto find = [&](const std::string& tenant, const std::string& hash) {
    return h.Do([&](Engine& e, Turn& t) {
      return e.FindIdempotent(t, tenant, record.key, hash);
    });
  };
  EXPECT_EQ((*find("tnt_a", "h1"))->body, record.body);
  EXPECT_EQ(ReasonOf(find("tnt_a", "h2").status()), "IDEMPOTENCY_CONFLICT");
  EXPECT_EQ(*find("tnt_b", "h2"), nullptr);
  h.loop.Advance(absl::Hours(24));
  h.Settle();
  EXPECT_EQ(*find("tnt_a", "h2"), nullptr);
}

TEST(Visibility, KeysEndWithTheirTimeTheirUserAndTheirTenant) {
  Harness h;
  EXPECT_EQ(ReasonOf(h.Do([&](Engine& e, Turn& t) {
                        return e.Authenticate(t, std::string(64, '2'));
                      }).status()),
            "AUTH_TOKEN_INVALID");
  EXPECT_TRUE(h.Do([&](Engine& e, Turn& t) {
                 return e.Authenticate(t, std::string(64, '1'));
               }).ok());
}

}  // namespace
}  // namespace bunker::controller
