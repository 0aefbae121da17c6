// Needs root, for a small file system to fill.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>

#include "agent/vm/rw_disk.h"
#include "common/base/reason.h"
#include "common/proc/subprocess.h"

namespace bunker::agent {
namespace {

TEST(RwDiskOnAFullHostTest, IsSaidAndLeavesNothing) {
  char mounted[] = "/tmp/bunker-full-disk.XXXXXX";
  ASSERT_NE(mkdtemp(mounted), nullptr);
  absl::StatusOr<CommandResult> result = RunCommand(
      {"/bin/mount", "-t", "tmpfs", "-o", "size=64k", "small", mounted}, {}, nullptr);
  ASSERT_TRUE(result.ok() && result->ok());
  const absl::Status status = MakeRwDisk(std::string(mounted) + "/rw", 1024, 0);
  EXPECT_EQ(ReasonOf(status), "DISK_FULL") << status;
  EXPECT_TRUE(std::filesystem::is_empty(mounted));
  result = RunCommand({"/bin/umount", mounted}, {}, nullptr);
  EXPECT_TRUE(result.ok() && result->ok());
  rmdir(mounted);
}

}  // namespace
}  // namespace bunker::agent
