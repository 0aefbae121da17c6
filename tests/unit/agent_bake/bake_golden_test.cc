// Fixed layers give fixed digests, on every build type and compiler. A change here is a change of
// the writer: raise kBakeWriterVersion with it, for caches are keyed by that.
#include <gtest/gtest.h>

#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

std::string Pattern(size_t bytes, uint32_t seed) {
  std::string data(bytes, '\0');
  for (char& byte : data) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<char>(seed >> 24);
  }
  return data;
}

TEST(BakeGolden, Recipe) {
  EXPECT_EQ(RecipeDigest({"sha256:" + std::string(64, '0'), "sha256:" + std::string(64, '1')}),
            "sha256:"
            "b2d528adbee28569001f5854fd04f943a72c38f92e9d87b8c8da05ada308599f");
}

TEST(BakeGolden, OneEmptyLayer) {
  Baker baker;
  const auto summary = baker.Layer(TarBuilder().Finish()).Run();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->rootfs_digest,
            "fsverity-sha256:"
            "47bb58a58b708e577e48c0ea039cc8780f6f4ade1365b6a56c432de9757caba2");
}

TEST(BakeGolden, EveryKindOfEntry) {
  TarBuilder lower;
  lower.Dir("etc").Dir("usr").Dir("usr/bin").Symlink("bin", "usr/bin");
  for (int i = 0; i < 300; ++i) {
    lower.File("usr/bin/tool-with-a-long-enough-name-" + std::to_string(i), Pattern(i * 97, i));
  }
  lower.File("usr/big", Pattern(9 << 20, 7)).File("usr/after", "after").Link("usr/same", "usr/big");
  TarBuilder upper;
  upper.File("bin/new", "through a link")
      .File("usr/bin/.wh.tool-with-a-long-enough-name-7", "")
      .Add({.name = "cap",
            .pax = {{"SCHILY.xattr.security.capability", std::string(20, 'c')},
                    {"SCHILY.xattr.user.large", std::string(2000, 'x')}}})
      .Add({.name = "null", .type = '3', .major = 1, .minor = 3})
      .Add({.name = "fifo", .type = '6'})
      .Add({.name = "old", .pax = {{"mtime", "-1.5"}}})
      .Symlink("long", std::string(200, 'l'))
      .File("usr/big", "small now");
  Baker baker;
  const auto summary = baker.Layer(lower.Finish(), Compression::kGzip)
                           .Layer(upper.Finish(), Compression::kZstd)
                           .Run();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(CheckImage(baker.image()), "");
  EXPECT_EQ(summary->rootfs_digest,
            "fsverity-sha256:"
            "08a248c0da94dd9478e1d4dbda03fe1e521c7d954ff5aaf7f0fd96790ca5e847");
}

}  // namespace
}  // namespace bunker::agent::test
