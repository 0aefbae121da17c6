// References: what an image is found by, and what is refused because several fit.
#include "controller/engine/image_ref.h"
#include "common/base/id.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

const std::string kShort = "sha256:" + std::string(12, 'a');

class ImageRefTest : public testing::Test {
 protected:
  ImageRefTest() {
    tenant.tenant_id = "tnt_t";
    tenant.partner_id = "ptr_p";
    tenant.role = Role::kTenantAdmin;
    partner = tenant;
    partner.tenant_id = "tnt_p";
    partner.role = Role::kPartnerAdmin;
  }
  RowPtr<Image> Register(const Caller& caller, const std::string& name, const std::string& ref,
                         Scope scope = Scope::kTenant) {
    RegisterImageSpec spec;
    spec.name = name;
    spec.scope = scope;
    spec.size_mib = 64;
    if (ref.front() == '/') {
      spec.build_source.kind = SourceKind::kTar;
      spec.build_source.path = ref;
    } else {
      spec.build_source.ref = ref;
    }
    auto image = h.Do([&](Engine& e, Turn& t) { return e.RegisterImage(t, caller, spec); });
    EXPECT_TRUE(image.ok()) << image.status();
    h.loop.Advance(absl::Milliseconds(2));  // so that ids sort by it
    return *image;
  }
  // As the worker `w` tells it.
  void Pin(const RowPtr<Image>& image, const std::string& repository, const std::string& digest,
           const std::string& index = "") {
    if (worker.empty()) worker = h.AddWorker("w");
    h.MakeGroup("g-" + image->name, {image->id}, {worker});
    h.ObserveImage(worker, image->id, CacheStatus::kBuilding, [&](ImageObservation& seen) {
      Harness::Resolve(seen, digest);
      seen.resolved->repository = repository;
      seen.resolved->index_digest = index;
    });
  }
  std::string Find(const Caller& caller, const std::string& ref) {
    const auto found = h.Do([&](Engine& e, Turn&) { return e.FindImage(caller, ref); });
    return found.ok() ? (*found)->name : ReasonOf(found.status());
  }
  std::string Find(const std::string& ref) { return Find(tenant, ref); }

  Harness h;
  Caller tenant;
  Caller partner;
  std::string worker;
};

TEST_F(ImageRefTest, EverySpellingOfDockerHubIsOne) {
  Register(tenant, "r-stats", "docker.io/r-base:4.4");
  for (const char* ref :
       {"docker.io/r-base:4.4", "docker.io/library/r-base:4.4", "index.docker.io/r-base:4.4",
        "registry-1.docker.io/library/r-base:4.4", "library/r-base:4.4", "r-base:4.4"})
    EXPECT_EQ(Find(ref), "r-stats") << ref;
  for (const char* ref :
       {"r-base", "r-base:4.5", "docker.io/other/r-base:4.4", "r-base:", ":4.4",
        "ghcr.io/r-base:4.4", "ghcr.io/library/r-base:4.4", "R-BASE:4.4", "@", ""})
    EXPECT_EQ(Find(ref), "NOT_FOUND") << ref;
}

TEST_F(ImageRefTest, TheHostMayBeLeftOut) {
  Register(tenant, "app", "127.0.0.1:5000/team/app:1");
  EXPECT_EQ(Find("team/app:1"), "app");
  EXPECT_EQ(Find("127.0.0.1:5000/team/app:1"), "app");
  EXPECT_EQ(Find("127.0.0.1:5001/team/app:1"), "NOT_FOUND");
  EXPECT_EQ(Find("docker.io/team/app:1"), "NOT_FOUND") << "a host that is named is meant";
  EXPECT_EQ(Find("team/app"), "NOT_FOUND") << "that is :latest";
  Register(tenant, "newest", "127.0.0.1:5000/team/app");
  EXPECT_EQ(Find("team/app"), "newest");
  EXPECT_EQ(Find("team/app:latest"), "newest");
}

TEST_F(ImageRefTest, SeveralRegistriesAreToldApart) {
  Register(tenant, "one", "a.example/team/app:1");
  EXPECT_EQ(Find("team/app:1"), "one");
  Register(tenant, "two", "b.example/team/app:1");
  EXPECT_EQ(Find("team/app:1"), "VALIDATION_ERROR") << "there is no telling";
  EXPECT_EQ(Find("b.example/team/app:1"), "two");
  // A retired one is not meant, where another one is not.
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, tenant, "one"); });
  EXPECT_EQ(Find("team/app:1"), "two");
  EXPECT_EQ(Find("a.example/team/app:1"), "one");
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, tenant, "two"); });
  EXPECT_EQ(Find("team/app:1"), "VALIDATION_ERROR");
  // Docker Hub is what a reference without a host means.
  Register(tenant, "hub", "team/app:1");
  EXPECT_EQ(Find("team/app:1"), "hub");
}

TEST_F(ImageRefTest, OfOneRepositoryTheNewestActiveOne) {
  Register(tenant, "old", "127.0.0.1:5000/app:1");
  Register(tenant, "new", "127.0.0.1:5000/app:1");
  EXPECT_EQ(Find("127.0.0.1:5000/app:1"), "new");
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, tenant, "new"); });
  EXPECT_EQ(Find("127.0.0.1:5000/app:1"), "old");
}

TEST_F(ImageRefTest, TenantThenPartnerThenPlatform) {
  Register(h.admin, "all", "127.0.0.1:5000/app:1", Scope::kPlatform);
  EXPECT_EQ(Find("app:1"), "all");
  Register(partner, "ours", "127.0.0.1:5000/app:1", Scope::kPartner);
  EXPECT_EQ(Find("app:1"), "ours");
  Register(tenant, "mine", "127.0.0.1:5000/app:1");
  EXPECT_EQ(Find("app:1"), "mine");
  EXPECT_EQ(Find(partner, "app:1"), "ours");
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, tenant, "mine"); });
  EXPECT_EQ(Find("app:1"), "ours") << "an active one that is farther";
  // A name is its owner's, retired or not.
  Register(partner, "same", "127.0.0.1:5000/far:1", Scope::kPartner);
  const RowPtr<Image> near = Register(tenant, "same", "127.0.0.1:5000/near:1");
  h.Must([&](Engine& e, Turn& t) { return e.Deactivate(t, tenant, "same"); });
  const auto found = h.Do([&](Engine& e, Turn&) { return e.FindImage(tenant, "same"); });
  EXPECT_EQ((*found)->id, near->id);
}

TEST_F(ImageRefTest, DigestsFindWhatIsPinned) {
  const RowPtr<Image> image = Register(h.admin, "multi", "127.0.0.1:5000/app:1");
  EXPECT_EQ(Find(h.admin, "multi@" + kDigestA), "NOT_FOUND") << "not resolved yet";
  Pin(image, "127.0.0.1:5000/app", kDigestA, kDigestB);
  const auto find = [&](const std::string& ref) { return Find(h.admin, ref); };
  for (const std::string& ref :
       {"multi@" + kDigestA, "multi@" + kDigestB, "multi@" + kShort, "app@" + kDigestA,
        "app@" + kShort, "127.0.0.1:5000/app@" + kDigestB, "127.0.0.1:5000/app:1@" + kDigestA})
    EXPECT_EQ(find(ref), "multi") << ref;
  for (const std::string& ref :
       {"multi@sha256:" + std::string(12, 'c'), "multi@" + kShort.substr(0, 18),
        std::string("multi@"), "multi@sha256:" + std::string(12, 'A'),
        "multi@sha512:" + std::string(64, 'a'), "other@" + kDigestA, "ghcr.io/app@" + kDigestA,
        "@" + kDigestA})
    EXPECT_EQ(find(ref), "NOT_FOUND") << ref;
  // Its own url, as rows have it.
  const auto row = h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, "multi"); });
  EXPECT_EQ(find((*row)->url()), "multi");
}

TEST_F(ImageRefTest, AShortDigestThatFitsTwoIsRefused) {
  Pin(Register(h.admin, "one", "127.0.0.1:5000/app:1"), "127.0.0.1:5000/app", kDigestA);
  const std::string other = kShort + std::string(52, 'd');
  Pin(Register(h.admin, "two", "127.0.0.1:5000/app:2"), "127.0.0.1:5000/app", other);
  EXPECT_EQ(Find(h.admin, "app@" + kShort), "VALIDATION_ERROR");
  EXPECT_EQ(Find(h.admin, "app@" + other), "two");
  EXPECT_EQ(Find(h.admin, "one@" + kShort), "one");
}

TEST_F(ImageRefTest, AReferenceByDigestIsKnownBeforeItIsResolved) {
  Register(tenant, "pinned", "127.0.0.1:5000/app@" + kDigestA);
  EXPECT_EQ(Find("app@" + kDigestA), "pinned");
  EXPECT_EQ(Find("pinned@" + kShort), "pinned");
  EXPECT_EQ(Find("app:latest"), "NOT_FOUND") << "it has no tag";
  const auto row = h.Do([&](Engine& e, Turn&) { return e.FindImage(tenant, "pinned"); });
  EXPECT_TRUE((*row)->tags.empty());
}

TEST_F(ImageRefTest, ATarSourceIsFoundByItsUrl) {
  const RowPtr<Image> image = Register(h.admin, "file", "/srv/tars/rootfs.tar");
  Pin(image, "/srv/tars/rootfs.tar", kDigestA);
  const auto row = h.Do([&](Engine& e, Turn&) { return e.FindImage(h.admin, "file"); });
  EXPECT_EQ(Find(h.admin, (*row)->url()), "file");
  EXPECT_TRUE((*row)->tags.empty());
}

TEST_F(ImageRefTest, UuidsInAnyCase) {
  const RowPtr<Image> image = Register(tenant, "x", "docker.io/x:1");
  std::string uuid = UuidOf(image->id);
  EXPECT_EQ(Find(uuid), "x");
  for (char& c : uuid) c = c >= 'a' && c <= 'f' ? static_cast<char>(c - 32) : c;
  EXPECT_EQ(Find(uuid), "x");
  EXPECT_EQ(Find(image->id.substr(4)), "x");
}

TEST_F(ImageRefTest, TagsAreFiltered) {
  Register(tenant, "one", "docker.io/r-base:4.4");
  Register(tenant, "two", "ghcr.io/team/app");
  const auto tagged = [&](const std::string& tag) {
    ImageFilter filter;
    filter.tag = tag;
    const auto page = h.Do([&](Engine& e, Turn&) { return e.ListImages(tenant, filter, {}); });
    return page.rows.empty() ? std::string() : page.rows[0]->name;
  };
  EXPECT_EQ(tagged("r-base:4.4"), "one");
  EXPECT_EQ(tagged("docker.io/library/r-base:4.4"), "one");
  EXPECT_EQ(tagged("team/app:latest"), "two");
  EXPECT_EQ(tagged("ghcr.io/team/app"), "two");
  EXPECT_EQ(tagged("r-base:4.5"), "");
  EXPECT_EQ(tagged("///"), "");
}

}  // namespace
}  // namespace bunker::controller
