// One suite over every store.
#include <future>
#include <map>
#include <memory>
#include <string>

#include "common/base/reason.h"
#include "controller/store/mem_store.h"
#include "controller/store/sqlite_store.h"
#include "gtest/gtest.h"
#include "tests/unit/common_sqlite/temp_dir.h"

namespace bunker::controller {
namespace {

class World {
 public:
  virtual ~World() = default;
  virtual std::unique_ptr<Store> Open() = 0;
  virtual void Close(std::unique_ptr<Store> store) = 0;
};

class MemWorld final : public World {
 public:
  std::unique_ptr<Store> Open() override { return std::make_unique<MemStore>(rows_, false); }
  void Close(std::unique_ptr<Store> store) override {
    rows_ = static_cast<MemStore&>(*store).rows();
  }

 private:
  MemStore::Rows rows_;
};

class SqliteWorld final : public World {
 public:
  std::unique_ptr<Store> Open() override {
    auto store = SqliteStore::Open(dir_.File("state.db"), {});
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }
  void Close(std::unique_ptr<Store> store) override { store.reset(); }

 private:
  TempDir dir_;
};

class Conformance : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "mem") {
      world_ = std::make_unique<MemWorld>();
    } else {
      world_ = std::make_unique<SqliteWorld>();
    }
    store_ = world_->Open();
  }
  void Reopen() {
    world_->Close(std::move(store_));
    store_ = world_->Open();
  }
  std::map<std::string, std::string> All(Noun noun) {
    std::map<std::string, std::string> rows;
    EXPECT_TRUE(store_->Load(noun, [&](std::string_view id, std::string_view body) {
      EXPECT_TRUE(rows.emplace(std::string(id), std::string(body)).second);
      return absl::OkStatus();
    }).ok());
    return rows;
  }
  static RowWrite Put(Noun noun, const std::string& id, const std::string& body) {
    return {noun, id, [body] { return body; }};
  }
  using Rows = std::map<std::string, std::string>;

  std::unique_ptr<World> world_;
  std::unique_ptr<Store> store_;
};

TEST_P(Conformance, EveryNounKeepsItsRowsApartAndAcrossAReopening) {
  Batch batch;
  for (const Noun noun : kAllNouns) {
    batch.push_back(Put(noun, "same", std::string(TableOf(noun))));
  }
  ASSERT_TRUE(CommitAndWait(*store_, std::move(batch)).ok());
  Reopen();
  for (const Noun noun : kAllNouns) {
    EXPECT_EQ(All(noun), (Rows{{"same", std::string(TableOf(noun))}}));
  }
}

TEST_P(Conformance, WritesReplaceAndDelete) {
  ASSERT_TRUE(CommitAndWait(*store_, {Put(Noun::kImage, "a", "1"), Put(Noun::kImage, "b", "1"),
                                      Put(Noun::kImage, "a", "2")})
                  .ok());
  ASSERT_TRUE(CommitAndWait(*store_, {{Noun::kImage, "b", nullptr},
                                      {Noun::kImage, "never", nullptr},
                                      Put(Noun::kImage, "c'\"%", "{\"x\":\"\\u0000\"}")})
                  .ok());
  Reopen();
  EXPECT_EQ(All(Noun::kImage), (Rows{{"a", "2"}, {"c'\"%", "{\"x\":\"\\u0000\"}"}}));
}

TEST_P(Conformance, BatchesAreDoneInOrder) {
  std::vector<int> order;
  std::promise<void> last;
  for (int i = 0; i < 100; ++i) {
    store_->Commit({Put(Noun::kBunker, "x", std::to_string(i))}, [&, i](const absl::Status& s) {
      EXPECT_TRUE(s.ok());
      order.push_back(i);
      if (i == 99) last.set_value();
    });
  }
  last.get_future().wait();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  Reopen();
  EXPECT_EQ(All(Noun::kBunker), (Rows{{"x", "99"}}));
}

TEST_P(Conformance, AnEmptyBatchIsFine) {
  EXPECT_TRUE(CommitAndWait(*store_, {}).ok());
}

TEST_P(Conformance, RangesAreReadWhileCommitsGoOn) {
  const auto body = [](int i) {
    return "{\"seq\":" + std::to_string(i) + ",\"tenant_id\":\"t" + std::to_string(i % 2) + "\"}";
  };
  const auto id = [](int i) { return std::string(1, static_cast<char>('a' + i)); };
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(CommitAndWait(*store_, {Put(Noun::kAudit, id(i), body(i))}).ok());
  ASSERT_TRUE(CommitAndWait(*store_, {Put(Noun::kImage, "x", body(1))}).ok());
  const auto read = [&](bool newest_first, const std::string& from, size_t limit,
                        const std::string& tenant) {
    StoreRange range;
    range.newest_first = newest_first;
    range.from = from;
    range.limit = limit;
    range.tenant_id = tenant;
    const auto rows = ReadAndWait(*store_, range);
    EXPECT_TRUE(rows.ok()) << rows.status();
    std::string ids;
    for (const StoredRow& row : *rows) ids += row.id;
    return ids;
  };
  EXPECT_EQ(read(false, "", 100, ""), "abcdefghij");
  EXPECT_EQ(read(true, "", 3, ""), "jih");
  EXPECT_EQ(read(true, "h", 3, ""), "gfe");
  EXPECT_EQ(read(false, "h", 3, ""), "ij");
  EXPECT_EQ(read(false, "", 3, "t1"), "bdf");
  EXPECT_EQ(read(true, "f", 100, "t0"), "eca");
  EXPECT_EQ(read(true, "a", 100, ""), "");
  EXPECT_EQ(read(false, "", 100, "t'\" OR 1"), "");
  Reopen();
  EXPECT_EQ(read(true, "", 3, ""), "jih");
}

TEST_P(Conformance, LoadStopsAtTheVisitorsError) {
  ASSERT_TRUE(
      CommitAndWait(*store_, {Put(Noun::kUser, "a", "1"), Put(Noun::kUser, "b", "1")}).ok());
  Reopen();
  int visited = 0;
  const absl::Status status =
      store_->Load(Noun::kUser, [&](std::string_view id, std::string_view) {
        EXPECT_EQ(id, "a");
        ++visited;
        return absl::DataLossError("bad");
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(visited, 1);
}

INSTANTIATE_TEST_SUITE_P(Stores, Conformance, testing::Values("mem", "sqlite"),
                         [](const auto& param) { return std::string(param.param); });

TEST(SqliteStore, SaysWhyItCannotOpen) {
  TempDir dir;
  SqliteStore::Options options;
  options.must_exist = true;
  EXPECT_FALSE(SqliteStore::Open(dir.File("none.db"), options).ok());
  EXPECT_FALSE(SqliteStore::Open("/nonexistent/x.db", {}).ok());
}

}  // namespace
}  // namespace bunker::controller
