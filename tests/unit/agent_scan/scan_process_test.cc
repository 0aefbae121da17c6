// The confined children for real: the reading of a file, and an operator's program. Needs root.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "absl/time/clock.h"
#include "agent/confined/confined_command.h"
#include "agent/scan/scan_child.h"
#include "agent/scan/scanner.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/agent_scan/ext4_folder.h"

namespace bunker::agent::test {
namespace {

using bunker::test::TempDir;

// Whether a process of that name is there.
bool Runs(const std::string& name) {
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", gone)) {
    std::ifstream in(entry.path() / "cmdline");
    std::string line;
    std::getline(in, line);
    if (line.rfind(name, 0) == 0) return true;
  }
  return false;
}

class ScanProcess : public ::testing::Test {
 protected:
  ScanProcess() {
    std::filesystem::permissions(dir_.path(), std::filesystem::perms(0711));
    const std::string root = dir_.File("root");
    WriteBelow(root, "etc/os-release", "ID=debian\nVERSION_ID=12\n");
    WriteBelow(root, "var/lib/dpkg/status",
               "Package: a\nStatus: install ok installed\nVersion: 1\n");
    image_ = dir_.File("image");
    MakeExt4(root, image_);
    options_.work_dir = dir_.File("work");
    options_.deadline = absl::Seconds(60);
  }

  // A program of the operator's: a shell script.
  void UseProgram(const std::string& scanner, const std::string& script) {
    options_.scanner = scanner;
    options_.source = "file:///nowhere/";
    options_.command = dir_.File("program");
    WriteBelow(dir_.path(), "program", "#!/bin/sh\n" + script);
    std::filesystem::permissions(options_.command, std::filesystem::perms(0755));
  }

  absl::StatusOr<scan::v1::ScanOutput> Scan() {
    const auto scanner = MakeScanner(options_);
    EXPECT_TRUE(scanner.ok()) << scanner.status();
    CancelToken cancel;
    return (*scanner)->Scan(image_, cancel);
  }

  TempDir dir_;
  std::string image_;
  ScanOptions options_;
};

TEST_F(ScanProcess, ReadsTheFileInAConfinedChild) {
  const auto output = Scan();
  ASSERT_TRUE(output.ok()) << output.status();
  ASSERT_EQ(output->inventory().packages_size(), 1);
  EXPECT_EQ(output->inventory().packages(0).name(), "a");
  EXPECT_EQ(output->inventory().distribution().version_id(), "12");
  EXPECT_FALSE(output->decided());
}

TEST_F(ScanProcess, IsBounded) {
  options_.memory_bytes = 8 << 20;
  EXPECT_FALSE(Scan().ok());
}

TEST_F(ScanProcess, AProgramGetsTheInventoryAndDecides) {
  UseProgram("debsecan",
             "test \"$(id -u)\" = 64020 || exit 3\n"
             "grep -q '^Package: a$' \"$6\" || exit 4\n"
             "test \"$2\" = bookworm || exit 5\n"
             "echo 'CVE-1 a (fixed)'\n");
  const auto output = Scan();
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_TRUE(output->decided());
  ASSERT_EQ(output->findings_size(), 1);
  EXPECT_EQ(output->findings(0).id(), "CVE-1");
  EXPECT_TRUE(std::filesystem::is_empty(options_.work_dir));
}

TEST_F(ScanProcess, AProgramHasNoRights) {
  WriteBelow(dir_.path(), "secret", "x");
  std::filesystem::permissions(dir_.File("secret"), std::filesystem::perms(0600));
  UseProgram("grype", "cat " + dir_.File("secret") +
                          " && exit 3\n"
                          "touch " +
                          dir_.File("made") +
                          " /tmp/bunker-made-by-a-scan && exit 4\n"
                          "grep -q 'CapEff:.*0000000000000000' /proc/self/status || exit 5\n"
                          "test \"$(wc -l < /proc/net/dev)\" -le 3 || exit 6\n"
                          "echo x > \"$TMPDIR/y\" || exit 7\n"
                          "echo '{\"matches\":[]}'\n");
  const auto output = Scan();
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_FALSE(std::filesystem::exists("/tmp/bunker-made-by-a-scan"));
}

TEST_F(ScanProcess, AProgramThatFailsIsAnErrorWithItsWords) {
  UseProgram("trivy", "echo 'no database' >&2; exit 1\n");
  const auto output = Scan();
  EXPECT_NE(std::string(output.status().message()).find("no database"), std::string::npos);
  UseProgram("trivy", "echo 'hello'\n");
  EXPECT_FALSE(Scan().ok());
  options_.command = dir_.File("missing");
  EXPECT_FALSE(Scan().ok());
}

TEST_F(ScanProcess, ATreeThatGoesItsOwnWayEndsWithTheDeadline) {
  options_.deadline = absl::Seconds(2);
  const std::string marker = "bunker-scan-straggler-" + std::to_string(getpid());
  UseProgram("trivy", "setsid sh -c 'exec -a " + marker + " sleep 600' &\nsetsid sleep 600\n");
  WriteBelow(dir_.path(), "program",
             "#!/bin/bash\n(setsid bash -c 'exec -a " + marker + " sleep 600' &)\nsleep 600\n");
  const auto output = Scan();
  EXPECT_TRUE(absl::IsDeadlineExceeded(output.status())) << output.status();
  // Nothing of it is left, in whatever session it is: the kernel's own killing takes a moment.
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (Runs(marker) && absl::Now() < end) {
  }
  EXPECT_FALSE(Runs(marker));
}

TEST_F(ScanProcess, WrongOptionsAreRefused) {
  for (const char* scanner : {"clamav", "trivy", "debsecan"}) {
    ScanOptions options;
    options.scanner = scanner;
    EXPECT_FALSE(MakeScanner(options).ok()) << scanner;
  }
  ScanOptions root;
  root.uid = 0;
  EXPECT_FALSE(MakeScanner(root).ok());
  options_.scanner = "none";
  EXPECT_NE(std::string(Scan().status().message()).find("no scanner"), std::string::npos);
}

}  // namespace
}  // namespace bunker::agent::test

int main(int argc, char** argv) {
  const char* first = argc > 1 ? argv[1] : "";
  if (std::strcmp(first, bunker::agent::kScanChildArgument) == 0) bunker::agent::ScanChildMain();
  if (std::strcmp(first, bunker::agent::kConfinedCommandArgument) == 0)
    return bunker::agent::ConfinedCommandMain(argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
