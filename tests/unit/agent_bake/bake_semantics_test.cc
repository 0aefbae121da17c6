// What ends up in the image, path by path, for stacks of hand-made layers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/reason.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

using Image = std::map<std::string, ImageEntry>;

std::string Paths(const Image& image) {
  std::string paths;
  for (const auto& [path, entry] : image) {
    if (!path.empty()) paths += (paths.empty() ? "" : " ") + path;
  }
  return paths;
}

TEST(BakeSemantics, UpperLayerReplaces) {
  const Image image =
      BakeAndRead({TarBuilder().Dir("a").File("a/f", "lower").File("g", "g").Finish(),
                   TarBuilder().Dir("a").File("a/f", "upper").Finish()});
  EXPECT_EQ(Paths(image), "a a/f g");
  EXPECT_EQ(image.at("a/f").content, "upper");
}

TEST(BakeSemantics, WhiteoutHidesLowerLayersOnly) {
  const std::string lower = TarBuilder().Dir("d").File("d/x", "1").File("d/y", "1").Finish();
  // Before or after its sibling of the same layer: the same.
  const Image first =
      BakeAndRead({lower, TarBuilder().Dir("d").File("d/.wh.x", "").File("d/x", "2").Finish()});
  const Image last =
      BakeAndRead({lower, TarBuilder().Dir("d").File("d/x", "2").File("d/.wh.x", "").Finish()});
  EXPECT_EQ(Paths(first), "d d/x d/y");
  EXPECT_EQ(first.at("d/x").content, "2");
  EXPECT_EQ(Paths(last), "d d/x d/y");
  EXPECT_EQ(last.at("d/x").content, "2");
}

TEST(BakeSemantics, WhiteoutOfAFolderKeepsWhatTheLayerPutThere) {
  const Image image = BakeAndRead(
      {TarBuilder().Dir("d").File("d/old", "1").Dir("d/sub").File("d/sub/old", "1").Finish(),
       TarBuilder().File("d/sub/new", "2").File(".wh.d", "").Finish()});
  EXPECT_EQ(Paths(image), "d d/sub d/sub/new");
}

TEST(BakeSemantics, OpaqueInEveryOrder) {
  const std::string lower =
      TarBuilder().Dir("d").File("d/old", "1").Dir("d/s").File("d/s/o", "1").Finish();
  for (const std::string& upper :
       {TarBuilder().Dir("d").File("d/.wh..wh..opq", "").File("d/new", "2").Finish(),
        TarBuilder().Dir("d").File("d/new", "2").File("d/.wh..wh..opq", "").Finish(),
        TarBuilder().File("d/new", "2").File("d/.wh..wh..opq", "").Finish()}) {
    EXPECT_EQ(Paths(BakeAndRead({lower, upper})), "d d/new");
  }
  // Of the root.
  EXPECT_EQ(
      Paths(BakeAndRead({lower, TarBuilder().File("n", "").File(".wh..wh..opq", "").Finish()})),
      "n");
}

TEST(BakeSemantics, TypesReplaceEachOther) {
  const std::string lower =
      TarBuilder().Dir("a").File("a/x", "1").File("b", "1").Symlink("c", "a").Finish();
  const Image image = BakeAndRead({lower, TarBuilder()
                                              .File("a", "file")
                                              .Dir("b")
                                              .File("b/y", "2")
                                              .Dir("c")
                                              .File("c/z", "3")
                                              .Finish()});
  EXPECT_EQ(Paths(image), "a b b/y c c/z");
  EXPECT_EQ(image.at("a").type, 'f');
  EXPECT_EQ(image.at("c").type, 'd');
}

TEST(BakeSemantics, FilesThroughASymlinkedParent) {
  const Image image = BakeAndRead(
      {TarBuilder()
           .Dir("usr")
           .Dir("usr/lib")
           .File("usr/lib/old", "1")
           .File("usr/lib/gone", "1")
           .Symlink("lib", "usr/lib")
           .Finish(),
       TarBuilder().File("lib/new", "2").File("lib/old", "2").File("lib/.wh.gone", "").Finish()});
  EXPECT_EQ(Paths(image), "lib usr usr/lib usr/lib/new usr/lib/old");
  EXPECT_EQ(image.at("lib").type, 'l');
  EXPECT_EQ(image.at("usr/lib/old").content, "2");
}

TEST(BakeSemantics, OpaqueAndHardLinkThroughASymlinkToASymlink) {
  const Image image = BakeAndRead(
      {TarBuilder()
           .Dir("r")
           .Dir("r/d")
           .File("r/d/a", "1")
           .File("r/d/b", "1")
           .Symlink("s1", "/r/d")
           .Symlink("s2", "../../s1")
           .Finish(),
       TarBuilder().Link("kept", "s2/a").File("s2/.wh..wh..opq", "").File("s2/c", "2").Finish()});
  EXPECT_EQ(Paths(image), "kept r r/d r/d/c s1 s2");
  EXPECT_EQ(image.at("kept").content, "1");
  EXPECT_EQ(image.at("kept").links, 1u);
}

TEST(BakeSemantics, DirectoryMemberReplacesASymlink) {
  const Image image =
      BakeAndRead({TarBuilder().Dir("t").File("t/x", "1").Symlink("l", "t").Finish(),
                   TarBuilder().Dir("l").File("l/y", "2").Finish()});
  EXPECT_EQ(Paths(image), "l l/y t t/x");
}

// The lower layer's file looked hidden by its spelling, and is not: its data is read again.
TEST(BakeSemantics, SpellingsThatOnlyLookAlike) {
  Baker baker;
  baker.Layer(TarBuilder().Dir("t").Symlink("l", "t").File("l/x", "lower").Finish())
      .Layer(TarBuilder().Dir("l").File("l/x", "upper").Finish());
  const auto summary = baker.Run();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->reread_layers, 1u);
  const Image image = ReadImage(baker.image());
  EXPECT_EQ(image.at("t/x").content, "lower");
  EXPECT_EQ(image.at("l/x").content, "upper");
  EXPECT_EQ(CheckImage(baker.image()), "");
}

TEST(BakeSemantics, DanglingAndEscapingLinksStayInside) {
  const Image image = BakeAndRead(
      {TarBuilder().Symlink("up", "../../../../etc").Symlink("abs", "/new/place").Finish(),
       TarBuilder().File("up/passwd", "1").File("abs/f", "2").Finish()});
  EXPECT_EQ(Paths(image), "abs etc etc/passwd new new/place new/place/f up");
}

TEST(BakeSemantics, HardLinks) {
  const Image image = BakeAndRead({TarBuilder()
                                       .File("a", "one")
                                       .Link("b", "a")
                                       .Link("late", "z")
                                       .File("z", "zed")
                                       .Symlink("s", "a")
                                       .Link("hs", "s")
                                       .Finish(),
                                   TarBuilder().Link("c", "/b").File("a", "two").Finish()});
  EXPECT_EQ(image.at("b").inode, image.at("c").inode);
  EXPECT_EQ(image.at("b").content, "one");
  EXPECT_EQ(image.at("b").links, 2u);
  EXPECT_EQ(image.at("a").content, "two");
  EXPECT_EQ(image.at("late").inode, image.at("z").inode);
  EXPECT_EQ(image.at("hs").type, 'l');
  EXPECT_EQ(image.at("hs").inode, image.at("s").inode);
}

TEST(BakeSemantics, DuplicateMembersAndSpellings) {
  const Image image = BakeAndRead({TarBuilder()
                                       .File("./f", "1")
                                       .File("f", "2")
                                       .Dir("./")
                                       .Dir("d/")
                                       .File("d//x", "3")
                                       .File("/abs", "4")
                                       .File("../../up", "5")
                                       .File("d/../side", "6")
                                       .Finish()});
  EXPECT_EQ(Paths(image), "abs d d/x f side up");
  EXPECT_EQ(image.at("f").content, "2");
}

TEST(BakeSemantics, ImpliedFoldersAreNamedByALowerLayer) {
  TarEntry folder{.name = "d", .type = '5', .mode = 0700, .uid = 7, .mtime = 77};
  const Image image = BakeAndRead(
      {TarBuilder().Add(folder).Finish(), TarBuilder().File("d/f", "").File("n/f", "").Finish()});
  EXPECT_EQ(image.at("d").mode, 0700u);
  EXPECT_EQ(image.at("d").uid, 7u);
  EXPECT_EQ(image.at("d").mtime, 77);
  EXPECT_EQ(image.at("n").mode, 0755u);
  EXPECT_EQ(image.at("n").mtime, 0);
}

TEST(BakeSemantics, MetadataInEveryForm) {
  const Image image =
      BakeAndRead({TarBuilder()
                       .Add({.name = "./", .type = '5', .mode = 01777, .uid = 5, .mtime = 123})
                       .Add({.name = "suid", .mode = 06755, .uid = 70'000, .gid = 4'000'000'000})
                       .Add({.name = "old", .mtime = 1, .pax = {{"mtime", "-5.25"}}})
                       .Add({.name = "odd", .pax = {{"mtime", "-0.25"}}})
                       .Add({.name = "nano", .pax = {{"mtime", "1700000000.123456789"}}})
                       .Add({.name = "far", .pax = {{"mtime", "9000000000"}}})
                       .Add({.name = "null", .type = '3', .major = 1, .minor = 3})
                       .Add({.name = "big", .type = '4', .major = 300, .minor = 70'000})
                       .Add({.name = "fifo", .type = '6'})
                       .Symlink("s59", std::string(59, 's'))
                       .Symlink("s60", std::string(60, 's'))
                       .Symlink("s4095", std::string(4095, 's'))
                       .Finish()});
  EXPECT_EQ(image.at("").mode, 01777u);
  EXPECT_EQ(image.at("").mtime, 123);
  EXPECT_EQ(image.at("suid").mode, 06755u);
  EXPECT_EQ(image.at("suid").uid, 70'000u);
  EXPECT_EQ(image.at("suid").gid, 4'000'000'000u);
  EXPECT_EQ(image.at("old").mtime, -6);
  EXPECT_EQ(image.at("old").mtime_nanoseconds, 750'000'000u);
  EXPECT_EQ(image.at("odd").mtime, -1);
  EXPECT_EQ(image.at("odd").mtime_nanoseconds, 750'000'000u);
  EXPECT_EQ(image.at("nano").mtime_nanoseconds, 123'456'789u);
  EXPECT_EQ(image.at("far").mtime, 9'000'000'000);
  EXPECT_EQ(image.at("null").type, 'c');
  EXPECT_EQ(image.at("null").major, 1u);
  EXPECT_EQ(image.at("null").minor, 3u);
  EXPECT_EQ(image.at("big").major, 300u);
  EXPECT_EQ(image.at("big").minor, 70'000u);
  EXPECT_EQ(image.at("fifo").type, 'p');
  EXPECT_EQ(image.at("s59").content, std::string(59, 's'));
  EXPECT_EQ(image.at("s60").content, std::string(60, 's'));
  EXPECT_EQ(image.at("s4095").content, std::string(4095, 's'));
}

TEST(BakeSemantics, NamesInAnyEncoding) {
  const std::string latin = "caf\xe9";
  const std::string decomposed = "cafe\xcc\x81";  // must not be composed
  const std::string composed = "caf\xc3\xa9";
  const Image image =
      BakeAndRead({TarBuilder()
                       .File(latin, "1")
                       .File(decomposed, "2")
                       .File(composed, "3")
                       .Add({.name = "x", .data = "4", .pax = {{"path", "pax\xe9" + latin}}})
                       .Add({.name = "x", .data = "5", .pax = {{"path", "pax-" + decomposed}}})
                       .File(std::string(255, 'n'), "6")
                       .Finish()});
  EXPECT_EQ(image.size(), 7u);
  EXPECT_EQ(image.at(latin).content, "1");
  EXPECT_EQ(image.at(decomposed).content, "2");
  EXPECT_EQ(image.at(composed).content, "3");
  EXPECT_EQ(image.at("pax\xe9" + latin).content, "4");
  EXPECT_EQ(image.at("pax-" + decomposed).content, "5");
}

TEST(BakeSemantics, ExtendedAttributes) {
  const std::string capability("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  const std::string acl(
      "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\2\0\4\0\xe8\3\0\0\4\0\4\0\xff\xff\xff\xff"
      "\x10\0\4\0\xff\xff\xff\xff\x20\0\4\0\xff\xff\xff\xff",
      44);
  Baker baker;
  baker.Layer(TarBuilder()
                  .Add({.name = "cap", .pax = {{"SCHILY.xattr.security.capability", capability}}})
                  .Add({.name = "acl", .pax = {{"SCHILY.xattr.system.posix_acl_access", acl}}})
                  .Add({.name = "big",
                        .pax = {{"SCHILY.xattr.user.a", std::string(3000, 'a')},
                                {"SCHILY.xattr.user.empty", ""},
                                {"SCHILY.xattr.user.b", "small"}}})
                  .Add({.name = "ovl",
                        .pax = {{"SCHILY.xattr.trusted.overlay.opaque", "y"},
                                {"SCHILY.xattr.user.overlay.redirect", "/etc"},
                                {"SCHILY.xattr.com.apple.x", "?"},
                                {"SCHILY.xattr.trusted.kept", "yes"}}})
                  .Finish());
  const auto summary = baker.Run();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(CheckImage(baker.image()), "");
  const Image image = ReadImage(baker.image());
  EXPECT_EQ(image.at("cap").xattrs.at("security.capability"), capability);
  // As it stands on disk: shorter entries where there is no id.
  EXPECT_EQ(image.at("acl").xattrs.at("system.posix_acl_access"),
            std::string("\1\0\0\0\1\0\6\0\2\0\4\0\xe8\3\0\0\4\0\4\0\x10\0\4\0\x20\0\4\0", 28));
  EXPECT_EQ(image.at("big").xattrs.size(), 3u);
  EXPECT_EQ(image.at("big").xattrs.at("user.a"), std::string(3000, 'a'));
  EXPECT_EQ(image.at("big").xattrs.at("user.b"), "small");
  EXPECT_THAT(image.at("ovl").xattrs,
              ::testing::ElementsAre(::testing::Pair("trusted.kept", "yes")));
  EXPECT_EQ(summary->dropped_xattr_count, 3u);
  EXPECT_THAT(summary->dropped_xattrs,
              ::testing::UnorderedElementsAre("ovl: trusted.overlay.opaque",
                                              "ovl: user.overlay.redirect", "ovl: com.apple.x"));
}

// What does not fit beside the inode and in one block: the largest values get inodes of their own.
TEST(BakeSemantics, LargeExtendedAttributes) {
  const auto pattern = [](size_t bytes, char first) {
    std::string value(bytes, first);
    for (size_t i = 0; i < bytes; ++i)
      value[i] = static_cast<char>(first + static_cast<char>(i % 23));
    return value;
  };
  std::string acl("\2\0\0\0\1\0\6\0\xff\xff\xff\xff", 12);
  for (int i = 0; i < 1200; ++i) {
    acl += std::string("\2\0\4\0", 4) + static_cast<char>(i & 0xff) +
           static_cast<char>(4 + i / 256) + std::string("\0\0", 2);
  }
  acl += std::string("\4\0\4\0\xff\xff\xff\xff\x10\0\4\0\xff\xff\xff\xff\x20\0\4\0\xff\xff\xff\xff",
                     24);
  TarEntry sum{.name = "sum", .data = "content"};
  for (char c = 'a'; c < 'k'; ++c) {
    sum.pax.emplace_back(std::string("SCHILY.xattr.user.") + c, pattern(900, c));
  }
  const Image image =
      BakeAndRead({TarBuilder()
                       .Add({.name = "one", .pax = {{"SCHILY.xattr.user.x", pattern(5001, 'x')}}})
                       .Add({.name = "most",
                             .pax = {{"SCHILY.xattr.user.m", pattern(65'536, 'm')},
                                     {"SCHILY.xattr.trusted.t", pattern(65'536, 't')},
                                     {"SCHILY.xattr.user.s", "small"}}})
                       .Add({.name = "twin", .pax = {{"SCHILY.xattr.user.x", pattern(5001, 'x')}}})
                       .Add({.name = "acl", .pax = {{"SCHILY.xattr.system.posix_acl_access", acl}}})
                       .Add({.name = "folder",
                             .type = '5',
                             .pax = {{"SCHILY.xattr.user.f", pattern(9000, 'f')}}})
                       .Add(sum)
                       .Add({.name = "link",
                             .type = '2',
                             .link = "one",
                             .pax = {{"SCHILY.xattr.trusted.l", pattern(9000, 'l')}}})
                       .Finish()});
  EXPECT_EQ(Paths(image), "acl folder link most one sum twin");
  EXPECT_EQ(image.at("one").xattrs.at("user.x"), pattern(5001, 'x'));
  EXPECT_EQ(image.at("twin").xattrs.at("user.x"), pattern(5001, 'x'));
  EXPECT_EQ(image.at("most").xattrs.at("user.m"), pattern(65'536, 'm'));
  EXPECT_EQ(image.at("most").xattrs.at("trusted.t"), pattern(65'536, 't'));
  EXPECT_EQ(image.at("most").xattrs.at("user.s"), "small");
  EXPECT_EQ(image.at("folder").xattrs.at("user.f"), pattern(9000, 'f'));
  EXPECT_EQ(image.at("acl").xattrs.at("system.posix_acl_access").size(), 4 + 4 + 1200 * 8 + 12u);
  for (char c = 'a'; c < 'k'; ++c) {
    EXPECT_EQ(image.at("sum").xattrs.at(std::string("user.") + c), pattern(900, c));
  }
  EXPECT_EQ(image.at("sum").content, "content");
  // The owner is charged for its values, 16 blocks each, and the block that names them.
  EXPECT_EQ(image.at("most").blocks, (2 * 16 + 1) * 8u);
  EXPECT_EQ(image.at("link").content, "one");
}

TEST(BakeSemantics, SparseFilesStaySparse) {
  // GNU's 1.0 form: the map stands before the data.
  std::string map = "3\n0\n4096\n1048576\n10\n52428800\n0\n";
  map.resize(512);
  const std::string data = std::string(4096, 'A') + std::string(10, 'B');
  const Image image = BakeAndRead({TarBuilder()
                                       .Add({.name = "x",
                                             .data = map + data,
                                             .pax = {{"GNU.sparse.major", "1"},
                                                     {"GNU.sparse.minor", "0"},
                                                     {"GNU.sparse.name", "hole"},
                                                     {"GNU.sparse.realsize", "52428800"}}})
                                       .Finish()});
  const ImageEntry& hole = image.at("hole");
  EXPECT_EQ(hole.size, 52428800u);
  EXPECT_EQ(hole.blocks, 16u);
  EXPECT_EQ(hole.content.substr(0, 4096), std::string(4096, 'A'));
  EXPECT_EQ(hole.content.substr(1048576, 11), std::string(10, 'B') + '\0');
  EXPECT_EQ(hole.content.find_first_not_of('\0', 1048586), std::string::npos);
}

TEST(BakeSemantics, BigDirectoriesAreIndexed) {
  TarBuilder tar;
  constexpr int kFiles = 70'000;  // two levels of index
  tar.Dir("d");
  for (int i = 0; i < kFiles; ++i)
    tar.Add({.name = "d/a-name-of-some-length-" + std::to_string(i)});
  const Image image = BakeAndRead({tar.Finish()});
  EXPECT_EQ(image.size(), kFiles + 2u);
  EXPECT_TRUE(image.at("d").flags & 0x1000) << "EXT2_INDEX_FL";
}

TEST(BakeSemantics, ManySubdirectoriesCountAsOneLink) {
  TarBuilder tar;
  for (int i = 0; i < 65'100; ++i)
    tar.Add({.name = "s" + std::to_string(i), .type = '5', .mode = 0755});
  const Image image = BakeAndRead({tar.Finish()});
  EXPECT_EQ(image.at("").links, 1u);
  EXPECT_EQ(image.size(), 65'101u);
}

TEST(BakeSemantics, DeepTreesAndManyEmptyFiles) {
  std::string path;
  TarBuilder tar;
  for (int i = 0; i < 1500; ++i) path += "d/";
  tar.File(path + "f", "deep");
  const Image image = BakeAndRead({tar.Finish()});
  EXPECT_EQ(image.at(path + "f").content, "deep");
}

// The exact need is known at the end of the last layer; the disk is not held until then.
TEST(BakeSemantics, OverTheCapGivesItsDiskBack) {
  Baker baker;
  baker.Layer(TarBuilder().File("late", std::string(3 << 20, 'l')).Finish())
      .Layer(TarBuilder().File("early", std::string(9 << 20, 'e')).Finish());
  const auto summary = baker.Run(8);
  EXPECT_EQ(ReasonOf(summary.status()), "SIZE_CAP_EXCEEDED");
  EXPECT_THAT(std::string(summary.status().message()), ::testing::HasSubstr("needs 14 MiB"));
  EXPECT_EQ(std::filesystem::file_size(baker.image()), 0u);
  EXPECT_TRUE(baker.Run(14).ok());
}

TEST(BakeSemantics, NothingIsAdded) {
  EXPECT_EQ(Paths(BakeAndRead({TarBuilder().Finish()})), "");
  EXPECT_EQ(Paths(BakeAndRead({""})), "");
  EXPECT_EQ(Paths(BakeAndRead({TarBuilder().Dir("lost+found").Finish()})), "lost+found");
}

}  // namespace
}  // namespace bunker::agent::test
