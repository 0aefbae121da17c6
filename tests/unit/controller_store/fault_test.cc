// The disk fills up at every single write that a series of commits makes. Whatever the write was:
// a commit that said yes is there, one that said no is not, and with room again all goes on.
#include <map>
#include <string>

#include "common/base/reason.h"
#include "controller/store/sqlite_store.h"
#include "gtest/gtest.h"
#include "tests/unit/common_sqlite/temp_dir.h"
#include "tests/unit/controller_store/fault_vfs.h"

namespace bunker::controller {
namespace {

using Rows = std::map<std::string, std::string>;

Rows All(Store& store) {
  Rows rows;
  EXPECT_TRUE(store.Load(Noun::kImage, [&](std::string_view id, std::string_view body) {
    rows.emplace(std::string(id), std::string(body));
    return absl::OkStatus();
  }).ok());
  return rows;
}

Batch BatchOf(int number) {
  Batch batch;
  for (int i = 0; i < 3; ++i) {
    const std::string body(3000, static_cast<char>('a' + number));
    batch.push_back({Noun::kImage, "row-" + std::to_string(number % 4) + "-" + std::to_string(i),
                     [body] { return body; }});
  }
  return batch;
}

void Apply(Rows& rows, const Batch& batch) {
  for (const RowWrite& write : batch) rows[write.id] = write.body();
}

std::unique_ptr<SqliteStore> Open(const std::string& path) {
  SqliteStore::Options options;
  options.vfs = RegisterFaultVfs();
  auto store = SqliteStore::Open(path, options);
  EXPECT_TRUE(store.ok()) << store.status();
  return *std::move(store);
}

TEST(DiskFull, AtEveryWrite) {
  ASSERT_NE(RegisterFaultVfs(), nullptr);
  int refused_in_all = 0;
  for (int64_t nth = 0; nth < 60; ++nth) {
    SCOPED_TRACE("write " + std::to_string(nth));
    TempDir dir;
    Faults().full_from = -1;
    Rows expected;
    {
      auto store = Open(dir.File("state.db"));
      Faults().writes = 0;
      Faults().full_from = nth;
      for (int i = 0; i < 8; ++i) {
        Batch batch = BatchOf(i);
        const Batch copy = batch;
        const absl::Status status = CommitAndWait(*store, std::move(batch));
        if (status.ok()) {
          Apply(expected, copy);
          continue;
        }
        ++refused_in_all;
        EXPECT_EQ(ReasonOf(status), "DISK_FULL") << status;
        if (i == 5) Faults().full_from = -1;  // room again
      }
      Faults().full_from = -1;
      const Batch last = BatchOf(8);
      EXPECT_TRUE(CommitAndWait(*store, last).ok());
      Apply(expected, last);
    }
    auto store = Open(dir.File("state.db"));
    EXPECT_EQ(All(*store), expected);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(refused_in_all, 50);
}

TEST(DiskFull, AtTheCheckpointOfTheEndLosesNothing) {
  TempDir dir;
  Rows expected;
  {
    auto store = Open(dir.File("state.db"));
    ASSERT_TRUE(CommitAndWait(*store, BatchOf(1)).ok());
    Apply(expected, BatchOf(1));
    Faults().writes = 0;
    Faults().full_from = 0;
  }
  Faults().full_from = -1;
  auto store = Open(dir.File("state.db"));
  EXPECT_EQ(All(*store), expected);
}

TEST(DiskFailureDeathTest, ASyncThatFailsEndsTheProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        TempDir dir;
        auto store = Open(dir.File("state.db"));
        Faults().fail_sync = true;
        CommitAndWait(*store, BatchOf(1)).IgnoreError();
      },
      "store.commit_failed");
}

}  // namespace
}  // namespace bunker::controller
