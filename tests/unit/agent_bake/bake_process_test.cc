// Bake() as the agent calls it: a confined child, typed errors, nothing left behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <utility>

#include "agent/bake/bake_supervisor.h"
#include "agent/confined/child_process.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

using ::testing::HasSubstr;

// Makes this binary a child that closes what it was given and waits for ever.
constexpr char kSilentChild[] = "silent-child";

std::string Noise(size_t bytes) {
  std::mt19937_64 random(42);
  std::string noise(bytes, '\0');
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(noise.data() + i, &word, 8);
  }
  return noise;
}

std::string SmallTar() {
  return TarBuilder().Dir("d").File("d/f", "content").Finish();
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// This process' only child.
pid_t Child() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string status = ReadAll(entry.path() / "status");
    if (status.find("\nPPid:\t" + std::to_string(getpid()) + "\n") != std::string::npos) {
      return std::stoi(name);
    }
  }
  return -1;
}

TEST(BakeProcess, GivesTheSameAsInProcess) {
  Baker confined, direct;
  confined.Layer(SmallTar(), Compression::kGzip);
  direct.Layer(SmallTar(), Compression::kZstd);
  const auto one = confined.RunConfined();
  const auto two = direct.Run();
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(one->rootfs_digest, two->rootfs_digest);
  EXPECT_EQ(ReadAll(confined.image()), ReadAll(direct.image()));
  struct stat status {};
  ASSERT_EQ(stat(confined.image().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0444u);
  EXPECT_EQ(status.st_uid, getuid());
  EXPECT_EQ(
      "fsverity-" + RunCommand("fsverity digest --compact --hash-alg=sha256 " + confined.image()),
      "fsverity-" + one->rootfs_digest.substr(16) + "\n");
  const std::string tool_tree = confined.image() + ".tree";
  RunCommand("fsverity digest --out-merkle-tree=" + tool_tree + " " + confined.image());
  EXPECT_EQ(ReadAll(confined.tree()), ReadAll(tool_tree));
}

TEST(BakeProcess, ChildIsConfined) {
  Baker baker;
  baker.Layer(TarBuilder().File("big", Noise(64 << 20)).Finish());
  CancelToken cancel;
  std::string status, network, limits;
  const auto own = std::filesystem::read_symlink("/proc/self/ns/net").string();
  const auto result = Bake(baker.Options(1024), cancel, [&](const BakeProgress&) {
    if (!status.empty()) return;
    // The first word comes when it is confined; held still while it is looked at.
    const pid_t child = Child();
    ASSERT_GT(child, 0);
    ASSERT_EQ(kill(child, SIGSTOP), 0);
    const std::string folder = "/proc/" + std::to_string(child);
    status = ReadAll(folder + "/status");
    network = std::filesystem::read_symlink(folder + "/ns/net");
    limits = ReadAll(folder + "/limits");
    ASSERT_EQ(kill(child, SIGCONT), 0);
  });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(status, HasSubstr("\nUid:\t64010\t64010\t64010\t64010\n"));
  EXPECT_THAT(status, HasSubstr("\nGid:\t64010\t64010\t64010\t64010\n"));
  EXPECT_THAT(status, HasSubstr("\nGroups:\t \n"));
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_THAT(status, HasSubstr(std::string("\n") + set + ":\t0000000000000000\n"));
  }
  EXPECT_THAT(status, HasSubstr("\nNoNewPrivs:\t1\n"));
  EXPECT_THAT(status, HasSubstr("\nSeccomp:\t2\n"));
  EXPECT_NE(network, own);
  EXPECT_THAT(limits, ::testing::ContainsRegex("Max file size +1073741824"));
  EXPECT_THAT(limits, ::testing::ContainsRegex("Max cpu time +120 "));
}

TEST(BakeProcess, BytesDependOnTheRecipeAlone) {
  Baker first, second;
  const std::string tar =
      TarBuilder().File("a", "1").Add({.name = "n", .pax = {{"path", "p/q"}}}).Finish();
  first.Layer(tar, Compression::kNone);
  second.Layer(tar, Compression::kGzip);
  ASSERT_TRUE(first.RunConfined(64).ok());
  setenv("TZ", "Pacific/Kiritimati", 1);
  tzset();
  const mode_t mask = umask(0077);
  // Long enough for any clock that slipped in to show.
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));
  const auto summary = second.RunConfined(2048);
  umask(mask);
  unsetenv("TZ");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(ReadAll(first.image()), ReadAll(second.image()));
}

TEST(BakeProcess, TarballWithoutKnownDigests) {
  Baker known, unknown;
  known.Layer(SmallTar());
  unknown.Layer(SmallTar());
  unknown.layers()[0].diff_id.clear();
  unknown.layers()[0].blob_digest.clear();
  unknown.layers()[0].size_bytes = 0;
  const auto one = known.RunConfined();
  const auto two = unknown.RunConfined();
  ASSERT_TRUE(one.ok() && two.ok()) << two.status();
  EXPECT_EQ(one->recipe_digest, two->recipe_digest);
  EXPECT_EQ(two->recipe_digest, RecipeDigest({"sha256:" + Sha256Hex(SmallTar())}));
  EXPECT_EQ(ReadAll(known.image()), ReadAll(unknown.image()));
}

struct Failure {
  const char* name;
  std::function<void(Baker&)> arrange;
  const char* reason;
  const char* message;
  uint32_t size_mib = 1024;
};

void PrintTo(const Failure& failure, std::ostream* out) {
  *out << failure.name;
}

class BakeFailure : public ::testing::TestWithParam<Failure> {};

TEST_P(BakeFailure, IsTypedAndLeavesNothing) {
  Baker baker;
  GetParam().arrange(baker);
  const auto summary = baker.RunConfined(GetParam().size_mib);
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(ReasonOf(summary.status()), GetParam().reason) << summary.status();
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr(GetParam().message));
  EXPECT_FALSE(std::filesystem::exists(baker.image()));
  EXPECT_FALSE(std::filesystem::exists(baker.tree()));
}

const std::string kOther = "sha256:" + std::string(64, 'a');

INSTANTIATE_TEST_SUITE_P(
    All, BakeFailure,
    ::testing::Values(
        Failure{"digest",
                [](Baker& b) {
                  b.Layer(SmallTar(), Compression::kGzip).layers()[0].blob_digest = kOther;
                },
                "DIGEST_MISMATCH", "pull it again"},
        Failure{"digest_none",
                [](Baker& b) { b.Layer(SmallTar()).layers()[0].blob_digest = kOther; },
                "DIGEST_MISMATCH", "layer 1 of 1"},
        Failure{"digest_and_garbage",
                [](Baker& b) {
                  b.Blob("not gzip at all", "", Compression::kGzip).layers()[0].blob_digest =
                      kOther;
                },
                "DIGEST_MISMATCH", ""},
        Failure{"size", [](Baker& b) { b.Layer(SmallTar()).layers()[0].size_bytes = 7; },
                "DIGEST_MISMATCH", "7"},
        Failure{
            "diff_id",
            [](Baker& b) { b.Layer(SmallTar(), Compression::kGzip).layers()[0].diff_id = kOther; },
            "LAYER_CORRUPT", "diff id"},
        Failure{"truncated",
                [](Baker& b) {
                  const std::string blob = Gzip(SmallTar());
                  b.Blob(blob.substr(0, blob.size() / 2), SmallTar(), Compression::kGzip);
                },
                "LAYER_CORRUPT", "truncated"},
        Failure{"truncated_zstd",
                [](Baker& b) {
                  const std::string blob = Zstd(Noise(1 << 20));
                  b.Blob(blob.substr(0, blob.size() / 2), SmallTar(), Compression::kZstd);
                },
                "LAYER_CORRUPT", ""},
        Failure{"not_gzip", [](Baker& b) { b.Blob(SmallTar(), SmallTar(), Compression::kGzip); },
                "LAYER_CORRUPT", "not a gzip stream"},
        Failure{"truncated_tar", [](Baker& b) { b.Layer(SmallTar().substr(0, 1100)); },
                "LAYER_CORRUPT", ""},
        Failure{"cap", [](Baker& b) { b.Layer(TarBuilder().File("f", Noise(5 << 20)).Finish()); },
                "SIZE_CAP_EXCEEDED", "needs 7 MiB", 4},
        Failure{"missing_file", [](Baker& b) { b.Layer(SmallTar()).layers()[0].path += "gone"; },
                "SOURCE_NOT_READABLE", ""},
        Failure{"cpu",
                [](Baker& b) {
                  b.limits().cpu_seconds = 1;
                  b.limits().max_ratio = 100'000;
                  b.Layer(TarBuilder().File("f", std::string(1ull << 30, 'x')).Finish(),
                          Compression::kGzip);
                },
                "LAYER_UNSUPPORTED", "CPU seconds", 4096},
        Failure{"memory",
                [](Baker& b) {
                  b.limits().memory_bytes = 60 << 20;
                  b.Layer(SmallTar());
                },
                "OUT_OF_MEMORY", "memory"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(BakeProcess, NeededSizeIsExact) {
  Baker baker;
  baker.Layer(TarBuilder().File("f", Noise(5 << 20)).Finish());
  EXPECT_FALSE(baker.RunConfined(6).ok());
  EXPECT_TRUE(baker.RunConfined(7).ok());
}

TEST(BakeProcess, CancelKillsAndLeavesNothing) {
  Baker baker;
  baker.Layer(TarBuilder().File("big", Noise(64 << 20)).Finish());
  CancelToken cancel;
  std::thread canceller;
  const auto result = Bake(baker.Options(1024), cancel, [&](const BakeProgress&) {
    if (!canceller.joinable()) canceller = std::thread([&cancel] { cancel.Cancel(); });
  });
  canceller.join();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ReasonOf(result.status()), "CANCELLED");
  EXPECT_FALSE(std::filesystem::exists(baker.image()));
  EXPECT_EQ(Child(), -1);
}

TEST(BakeProcess, DeadlineKills) {
  Baker baker;
  baker.Layer(TarBuilder().File("big", Noise(64 << 20)).Finish());
  baker.limits().wall_time = absl::Milliseconds(1);
  const auto result = baker.RunConfined();
  EXPECT_EQ(ReasonOf(result.status()), "LAYER_UNSUPPORTED") << result.status();
  EXPECT_FALSE(std::filesystem::exists(baker.image()));
}

// A child that was taken over may close its pipes and live on: its time ends all the same.
TEST(BakeProcess, AChildWithoutPipesHasADeadline) {
  ChildProcess child;
  ASSERT_TRUE(child.Start("silent", kSilentChild, {ChildProcess::kEventPipe}).ok());
  bool asked = false;
  const auto remaining = [&] {
    return std::exchange(asked, true) ? absl::ZeroDuration() : absl::Seconds(60);
  };
  const ChildEnd end = child.Wait(remaining, [](const std::string&) {});
  EXPECT_TRUE(end.timed_out);
  EXPECT_EQ(end.signal, SIGKILL);
}

TEST(BakeProcess, KilledChildIsOneFailedAttempt) {
  Baker baker;
  baker.Layer(TarBuilder().File("big", Noise(64 << 20)).Finish());
  CancelToken cancel;
  bool killed = false;
  const auto result = Bake(baker.Options(1024), cancel, [&](const BakeProgress&) {
    if (!std::exchange(killed, true)) kill(Child(), SIGSEGV);
  });
  EXPECT_EQ(ReasonOf(result.status()), "INTERNAL") << result.status();
  EXPECT_FALSE(std::filesystem::exists(baker.image()));
  EXPECT_TRUE(baker.RunConfined().ok());
}

TEST(BakeProcess, FullDisk) {
  Baker baker;
  baker.Layer(TarBuilder().File("f", Noise(12 << 20)).Finish());
  bunker::test::TempDir mount_point;
  ASSERT_EQ(mount("tmpfs", mount_point.path().c_str(), "tmpfs", 0, "size=8m"), 0);
  BakeOptions options = baker.Options(1024);
  options.out_path = mount_point.File("image");
  options.tree_path = mount_point.File("tree");
  CancelToken cancel;
  const auto full = Bake(options, cancel, [](const BakeProgress&) {});
  EXPECT_EQ(ReasonOf(full.status()), "DISK_FULL") << full.status();
  EXPECT_TRUE(std::filesystem::is_empty(mount_point.path()));
  EXPECT_EQ(mount("tmpfs", mount_point.path().c_str(), "tmpfs", MS_REMOUNT, "size=32m"), 0);
  const auto fits = Bake(options, cancel, [](const BakeProgress&) {});
  EXPECT_TRUE(fits.ok()) << fits.status();
  umount2(mount_point.path().c_str(), MNT_DETACH);
}

}  // namespace
}  // namespace bunker::agent::test

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == bunker::agent::kBakeChildArgument) {
    return bunker::agent::BakeChildMain();
  }
  if (argc > 1 && std::string(argv[1]) == bunker::agent::test::kSilentChild) {
    alarm(60);  // should its test be killed
    for (int fd = 0; fd < 16; ++fd) close(fd);
    for (;;) pause();
  }
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
