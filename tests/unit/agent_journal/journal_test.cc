#include "agent/journal/journal.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"

namespace bunker::agent {
namespace {

class JournalTest : public ::testing::Test {
 protected:
  std::unique_ptr<Journal> Open() {
    auto journal = Journal::Open(path_);
    EXPECT_TRUE(journal.ok()) << journal.status();
    return journal.ok() ? *std::move(journal) : nullptr;
  }

  static link::v1::Assignment Row(const std::string& name, uint64_t version) {
    link::v1::Assignment row;
    row.set_name(name);
    row.set_version(version);
    row.mutable_bunker()->set_bunker_id(name);
    return row;
  }

  test::TempDir folder_;
  const std::string path_ = folder_.path() + "/journal.db";
};

TEST_F(JournalTest, TheBootCounterRisesWithEachOpening) {
  EXPECT_EQ(Open()->boot_counter(), 1u);
  EXPECT_EQ(Open()->boot_counter(), 2u);
}

TEST_F(JournalTest, AssignmentsSurviveAndRemovalsGo) {
  auto journal = Open();
  ASSERT_TRUE(journal->ApplyAssignments({Row("bunkers/a", 1), Row("bunkers/b", 2)}, {}).ok());
  ASSERT_TRUE(journal->ApplyAssignments({Row("bunkers/a", 3)}, {"bunkers/b", "unknown"}).ok());
  journal.reset();
  const auto rows = Open()->Assignments();
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].version(), 3u);
}

TEST_F(JournalTest, IncarnationsOfOneBunkerAreRowsOfTheirOwn) {
  auto journal = Open();
  v1::VmRow row;
  row.mutable_wanted()->set_bunker_id("b");
  for (const uint32_t incarnation : {1u, 2u}) {
    row.mutable_wanted()->set_incarnation(incarnation);
    row.set_pid(static_cast<int32_t>(100 + incarnation));
    ASSERT_TRUE(journal->PutVm(row).ok());
  }
  ASSERT_TRUE(journal->RemoveVm("b", 1).ok());
  const auto rows = journal->Vms();
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].pid(), 102);
}

TEST_F(JournalTest, AVmThatGetsAnotherNameIsOneRow) {
  auto journal = Open();
  v1::VmRow row;
  row.mutable_wanted()->set_bunker_id("pool.1");
  row.mutable_wanted()->set_incarnation(1);
  row.set_pid(7);
  ASSERT_TRUE(journal->PutVm(row).ok());
  row.mutable_wanted()->set_bunker_id("b");
  row.mutable_wanted()->set_incarnation(3);
  ASSERT_TRUE(journal->RenameVm("pool.1", row).ok());
  const auto rows = journal->Vms();
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].wanted().bunker_id(), "b");
  EXPECT_EQ((*rows)[0].pid(), 7);
}

TEST_F(JournalTest, ASecondAgentIsRefused) {
  const auto first = Open();
  const auto second = Journal::Open(path_);
  EXPECT_FALSE(second.ok());
}

TEST_F(JournalTest, WhatWasWrittenSurvivesAKillRightAfter) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto journal = Journal::Open(path_);
    const bool written =
        journal.ok() && (*journal)->ApplyAssignments({Row("bunkers/a", 7)}, {}).ok();
    if (written) ::raise(SIGKILL);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto rows = Open()->Assignments();
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
}

}  // namespace
}  // namespace bunker::agent
