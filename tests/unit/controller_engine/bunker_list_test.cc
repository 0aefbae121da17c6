// The list of bunkers against a plain search through all rows.
#include <algorithm>
#include <string>
#include <vector>

#include "common/base/id.h"
#include "controller/engine/bunker_index.h"
#include "controller/store/row_codec.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

TEST(BunkerIndexTest, KeysSortAsIdsDoAndComeBack) {
  SeededRng rng(3);
  std::string last_id;
  std::optional<BunkerIndex::Key> last;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewId("bnk_", absl::FromUnixMillis(1'800'000'000'000 + 7 * i), rng);
    const auto key = BunkerIndex::KeyOf(id);
    ASSERT_TRUE(key.has_value());
    EXPECT_EQ(BunkerIndex::IdOf(*key), id);
    if (last) {
      EXPECT_EQ(last_id < id, *last < *key);
    }
    last_id = id;
    last = key;
  }
  EXPECT_FALSE(BunkerIndex::KeyOf(""));
  EXPECT_FALSE(BunkerIndex::KeyOf("bnk_" + std::string(31, 'a')));
  EXPECT_FALSE(BunkerIndex::KeyOf("img_" + std::string(32, 'a')));
  EXPECT_FALSE(BunkerIndex::KeyOf("bnk_" + std::string(31, 'a') + "G"));
}

// Rows of two tenants of one partner and of another partner, straight into the store.
class BunkerListTest : public testing::Test {
 protected:
  BunkerListTest() : random(17) {
    MemStore boot;
    BootstrapSpec spec;
    spec.key_sha256 = std::string(64, '1');
    EXPECT_TRUE(Bootstrap(boot, spec, absl::FromUnixSeconds(1'799'000'000), random).ok());
    MemStore::Rows rows = boot.rows();
    for (int i = 0; i < 1500; ++i) {
      Bunker row = RandomBunker(i);
      rows[{Noun::kBunker, row.id}] = EncodeRow(row);
      all.push_back(std::move(row));
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.id > b.id; });
    h = std::make_unique<Harness>(EngineOptions(), false, rows);
  }

  Bunker RandomBunker(int number) {
    Bunker row;
    row.id = NewId("bnk_", absl::FromUnixSeconds(1'799'900'000 + number), random);
    row.name = "b" + std::to_string(number);
    const uint64_t tenant = random.Below(3);
    row.tenant_id = "tnt_" + std::to_string(tenant);
    row.partner_id = tenant == 2 ? "ptr_other" : "ptr_one";
    row.owner = row.tenant_id + "_usr_" + std::to_string(random.Below(3));
    row.lifecycle_mode = static_cast<LifecycleMode>(random.Below(3));
    row.status = random.Below(10) == 0 ? BunkerStatus::kFailed : BunkerStatus::kStopped;
    if (random.Below(2) == 0) row.label_set["job"] = std::to_string(random.Below(4));
    if (random.Below(2) == 0) row.label_set["stage"] = std::to_string(random.Below(2));
    row.created_at = row.updated_at = absl::FromUnixSeconds(1'799'900'000 + number);
    row.terminated_at = absl::FromUnixSeconds(1'799'990'000 + number);
    return row;
  }

  Caller RandomCaller() {
    Caller caller;
    caller.tenant_id = "tnt_" + std::to_string(random.Below(3));
    caller.partner_id = caller.tenant_id == "tnt_2" ? "ptr_other" : "ptr_one";
    caller.user_id = caller.tenant_id + "_usr_" + std::to_string(random.Below(3));
    caller.role = static_cast<Role>(random.Below(5));
    caller.sees_all_bunkers = caller.role != Role::kTenantUser;
    return caller;
  }

  BunkerFilter RandomFilter() {
    BunkerFilter filter;
    if (random.Below(2) == 0) {
      filter.statuses = {random.Below(2) == 0 ? BunkerStatus::kFailed : BunkerStatus::kStopped};
    }
    if (random.Below(3) == 0) filter.lifecycle = static_cast<LifecycleMode>(random.Below(3));
    if (random.Below(2) == 0) filter.labels["job"] = std::to_string(random.Below(5));
    if (random.Below(3) == 0) filter.labels["stage"] = std::to_string(random.Below(2));
    return filter;
  }

  std::vector<std::string> Expected(const Caller& caller, const BunkerFilter& filter) {
    std::vector<std::string> ids;
    for (const Bunker& row : all) {
      bool wanted = h->engine->MaySeeBunker(caller, row);
      wanted = wanted && (filter.statuses.empty() || filter.statuses.count(row.status) > 0);
      wanted = wanted && (!filter.lifecycle || *filter.lifecycle == row.lifecycle_mode);
      for (const auto& [label, value] : filter.labels) {
        const auto it = row.label_set.find(label);
        wanted = wanted && it != row.label_set.end() && it->second == value;
      }
      if (wanted) ids.push_back(row.id);
    }
    return ids;
  }

  SeededRng random;
  std::vector<Bunker> all;  // newest first
  std::unique_ptr<Harness> h;
};

TEST_F(BunkerListTest, PagesAreWhatASearchThroughAllRowsFinds) {
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const Caller caller = RandomCaller();
    const BunkerFilter filter = RandomFilter();
    PageSpec page;
    page.limit = static_cast<uint32_t>(1 + random.Below(200));
    std::vector<std::string> found;
    while (true) {
      const Page<Bunker> got = h->engine->ListBunkers(caller, filter, page);
      ASSERT_LE(got.rows.size(), page.limit);
      for (const RowPtr<Bunker>& row : got.rows) found.push_back(row->id);
      if (!got.has_more) break;
      ASSERT_NE(got.last_id, page.after_id);
      page.after_id = got.last_id;
    }
    ASSERT_EQ(found, Expected(caller, filter));
  }
}

}  // namespace
}  // namespace bunker::controller
