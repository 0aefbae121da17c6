// Layers that mean harm, or are simply wrong: each has its verdict, and none takes long.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "absl/time/clock.h"
#include "common/base/reason.h"
#include "tests/unit/agent_bake/baker.h"
#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {
namespace {

using ::testing::HasSubstr;

struct Case {
  const char* name;
  std::function<void(Baker&)> arrange;
  const char* reason;  // "" where it is fine
  const char* message = "";
};

void PrintTo(const Case& hostile, std::ostream* out) {
  *out << hostile.name;
}

std::function<void(Baker&)> One(const TarBuilder& tar) {
  return [bytes = tar.Finish()](Baker& baker) { baker.Layer(bytes); };
}
std::function<void(Baker&)> Blob(const std::string& blob, Compression compression) {
  return [=](Baker& baker) {
    baker.Blob(blob, "", compression);
    baker.layers()[0].diff_id.clear();
  };
}
TarBuilder Named(const std::string& name, char type = '0') {
  return TarBuilder().Add({.name = name, .type = type});
}
TarBuilder Pax(const std::string& key, const std::string& value) {
  return TarBuilder().Add({.name = "member", .pax = {{key, value}}});
}
TarBuilder ManyXattrs(int count, size_t name_bytes) {
  TarEntry entry{.name = "member"};
  for (int i = 0; i < count; ++i) {
    const std::string name = std::to_string(100 + i) + std::string(name_bytes - 3, 'n');
    entry.pax.emplace_back("SCHILY.xattr.user." + name, std::string(400, 'v'));
  }
  return TarBuilder().Add(entry);
}
// Its map places less than its size holds: a whole member is in what is left, or behind it.
TarBuilder ShortMap() {
  return TarBuilder().Add({.name = "GNUSparseFile.0/hole",
                           .data = std::string(512, 'd') + std::string(512, '\0'),
                           .pax = {{"GNU.sparse.size", "4096"},
                                   {"GNU.sparse.numblocks", "1"},
                                   {"GNU.sparse.name", "hole"},
                                   {"GNU.sparse.map", "0,512"}}});
}

TarBuilder OddSparse(size_t first_piece_bytes) {
  std::string map = "2\n0\n" + std::to_string(first_piece_bytes) + "\n4096\n3\n";
  map.resize(512);
  return TarBuilder().Add({.name = "x",
                           .data = map + std::string(first_piece_bytes, 'a') + "end",
                           .pax = {{"GNU.sparse.major", "1"},
                                   {"GNU.sparse.minor", "0"},
                                   {"GNU.sparse.name", "hole"},
                                   {"GNU.sparse.realsize", "4099"}}});
}
TarBuilder HeaderField(int offset, const std::string& bytes) {
  TarBuilder tar;
  tar.Header({.name = "member"}, 0);
  std::string raw = tar.bytes();
  bytes.copy(raw.data() + offset, bytes.size());
  TarBuilder::Seal(raw.data());
  return TarBuilder().Raw(raw);
}
std::string Base256(uint64_t value, size_t width) {
  std::string field(width, '\0');
  for (size_t i = width; i-- > 1; value >>= 8) field[i] = static_cast<char>(value);
  field[0] = static_cast<char>(0x80);
  return field;
}

class BakeHostile : public ::testing::TestWithParam<Case> {};

TEST_P(BakeHostile, HasItsVerdict) {
  Baker baker;
  GetParam().arrange(baker);
  const absl::Time start = absl::Now();
  const auto summary = baker.Run(512);
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));  // in the debug build, on a busy machine
  EXPECT_EQ(ReasonOf(summary.status()), GetParam().reason) << summary.status();
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr(GetParam().message));
  if (summary.ok()) {
    EXPECT_EQ(CheckImage(baker.image()), "");
  }
}

constexpr char kUnsupported[] = "LAYER_UNSUPPORTED";
constexpr char kCorrupt[] = "LAYER_CORRUPT";

INSTANTIATE_TEST_SUITE_P(
    Names, BakeHostile,
    ::testing::Values(
        Case{"dotdot", One(Named("..", '5')), kUnsupported, "'..'"},
        Case{"dotdot_slash", One(Named("../", '5')), kUnsupported, "'../'"},
        Case{"inner_dotdot", One(Named("a/b/..", '5')), kUnsupported, "a/b/.."},
        Case{"leading_dotdot", One(Named("../../x")), ""},
        Case{"absolute", One(Named("/etc/x")), ""}, Case{"empty", One(Named("")), kUnsupported},
        Case{"root_is_a_file", One(Named(".")), kUnsupported, "root"},
        Case{"root_is_a_link", One(TarBuilder().Symlink("./", "x")), kUnsupported},
        Case{"wh_empty", One(Named("d/.wh.")), kUnsupported, "d/.wh."},
        Case{"wh_dot", One(Named(".wh..")), kUnsupported, ".wh.."},
        Case{"wh_dotdot", One(Named(".wh...")), kUnsupported, ".wh..."},
        Case{"wh_parent", One(Named(".wh.d/x")), kUnsupported, ".wh.d/x"},
        Case{"wh_of_nothing", One(Named("a/b/.wh.c")), ""},
        Case{"long_name", One(Pax("path", std::string(256, 'n'))), kUnsupported, "255"},
        Case{"long_path", One(Pax("path", std::string(2100, '/') + std::string(2100, '.'))),
             kUnsupported, "4096"},
        Case{"nul_in_path", One(Pax("path", std::string("foo\0bar", 7))), kUnsupported, "NUL"},
        Case{"nul_in_key", One(Pax(std::string("SCHILY.xattr.user.\0x", 20), "v")), kUnsupported},
        Case{"parent_is_a_file", One(TarBuilder().File("f", "").File("f/x", "")), kUnsupported,
             "f/x"},
        Case{"link_loop", One(TarBuilder().Symlink("a", "b").Symlink("b", "a").File("a/x", "")),
             kUnsupported, "loop"},
        Case{"self_link", One(TarBuilder().Symlink("a", "a").File("a/x", "")), kUnsupported},
        Case{"long_link_part",
             One(TarBuilder().Symlink("a", std::string(300, 'l')).File("a/x", "")), kUnsupported},
        Case{"dot_link", One(TarBuilder().Symlink("a", "/.").File("a/x", "")), ""}),
    [](const auto& test) { return std::string(test.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Links, BakeHostile,
    ::testing::Values(
        Case{"hard_link_to_nothing", One(TarBuilder().Link("a", "gone")), kUnsupported, "gone"},
        Case{"hard_link_to_itself", One(TarBuilder().Link("a", "a")), kUnsupported},
        Case{"hard_link_outside", One(TarBuilder().Link("a", "../../etc/passwd")), kUnsupported},
        Case{"hard_link_to_dir", One(TarBuilder().Dir("d").Link("a", "d")), kUnsupported},
        Case{"hard_link_to_root", One(TarBuilder().Link("a", "/")), kUnsupported},
        Case{"hard_link_cycle", One(TarBuilder().Link("a", "b").Link("b", "a")), kUnsupported},
        Case{"hard_link_with_data",
             One(TarBuilder().File("f", "").Add(
                 {.name = "a", .type = '1', .link = "f", .data = "x", .pax = {{"comment", "c"}}})),
             kUnsupported},
        Case{"too_many_hard_links",
             [](Baker& baker) {
               TarBuilder tar;
               tar.File("f", "x");
               for (int i = 0; i < 70'000; ++i) tar.Link(std::to_string(i), "f");
               baker.Layer(tar.Finish());
             },
             kUnsupported, "65000"},
        Case{"most_hard_links",
             [](Baker& baker) {
               TarBuilder tar;
               tar.File("f", "x");
               for (int i = 1; i < 65'000; ++i) tar.Link(std::to_string(i), "f");
               baker.Layer(tar.Finish());
             },
             ""}),
    [](const auto& test) { return std::string(test.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Numbers, BakeHostile,
    ::testing::Values(
        Case{"uid_max", One(Pax("uid", "4294967295")), kUnsupported, "owner"},
        Case{"uid_last", One(Pax("uid", "4294967294")), ""},
        Case{"uid_base256", One(HeaderField(108, Base256(1ull << 40, 8))), kUnsupported},
        Case{"mtime_nonsense", One(Pax("mtime", "12x")), kUnsupported},
        Case{"mtime_too_late", One(Pax("mtime", "99999999999")), kUnsupported, "2446"},
        Case{"mtime_too_early", One(Pax("mtime", "-2147483649")), kUnsupported},
        Case{"mtime_first", One(Pax("mtime", "-2147483648")), ""},
        Case{"device_too_large",
             One(TarBuilder().Add({.name = "d", .type = '3', .major = 4096, .minor = 1})),
             kUnsupported, "device"},
        Case{"size_beyond_the_stream",
             [](Baker& b) { b.Layer(TarBuilder().Header({.name = "f"}, 5000).bytes()); }, kCorrupt},
        Case{"size_huge", One(HeaderField(124, Base256(1ull << 62, 12))), kUnsupported, "16 TiB"},
        Case{"sparse_bomb",
             One(TarBuilder().Add({.name = "x",
                                   .data = std::string("1\n1125899906842624\n0\n") +
                                           std::string(512 - 21, '\0'),
                                   .pax = {{"GNU.sparse.major", "1"},
                                           {"GNU.sparse.minor", "0"},
                                           {"GNU.sparse.name", "bomb"},
                                           {"GNU.sparse.realsize", "1125899906842624"}}})),
             kUnsupported, "bomb"},
        Case{"bad_checksum",
             Blob(std::string(512, 'x') + std::string(1024, '\0'), Compression::kNone),
             kUnsupported, "not a tar"}),
    [](const auto& test) { return std::string(test.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Attributes, BakeHostile,
    ::testing::Values(
        Case{"xattr_over_64k", One(Pax("SCHILY.xattr.user.x", std::string(65'537, 'v'))),
             kUnsupported, "member"},
        Case{"xattr_of_64k", One(Pax("SCHILY.xattr.user.x", std::string(65'536, 'v'))), ""},
        Case{"xattr_names_over_a_block", One(ManyXattrs(40, 200)), kUnsupported, "'member'"},
        Case{"xattr_names_in_a_block", One(ManyXattrs(18, 200)), ""},
        Case{"sparse_odd_pieces", One(OddSparse(5)), kUnsupported, "'hole'"},
        Case{"sparse_short_map", One(ShortMap()), kUnsupported, "'hole'"},
        Case{"sparse_whole_pieces", One(OddSparse(512)), ""},
        Case{"xattr_long_name", One(Pax("SCHILY.xattr.user." + std::string(300, 'n'), "v")),
             kUnsupported, "255"},
        Case{"xattr_no_name", One(Pax("SCHILY.xattr.user.", "v")), ""},
        Case{"acl_malformed", One(Pax("SCHILY.xattr.system.posix_acl_access", "abc")),
             kUnsupported},
        Case{"pax_header_over_1m", One(Pax("comment", std::string(3 << 20, 'c'))), kCorrupt},
        Case{"pax_header_under_1m", One(Pax("comment", std::string(900'000, 'c'))), ""}),
    [](const auto& test) { return std::string(test.param.name); });

std::string Inner() {
  return TarBuilder().File("f", "x").Finish();
}

INSTANTIATE_TEST_SUITE_P(
    Compressions, BakeHostile,
    ::testing::Values(
        Case{"nested_gzip", Blob(Gzip(Gzip(std::string(64 << 20, '\0'), 9), 9), Compression::kGzip),
             kUnsupported, "compressed twice"},
        Case{"gzip_in_zstd", Blob(Zstd(Gzip(Inner())), Compression::kZstd), kUnsupported, "twice"},
        Case{"gzip_said_to_be_none", Blob(Gzip(Inner()), Compression::kNone), kUnsupported,
             "twice"},
        Case{"zstd_said_to_be_gzip", Blob(Zstd(Inner()), Compression::kGzip), kCorrupt},
        Case{"ratio", Blob(Gzip(TarBuilder().File("f", std::string(200 << 20, '\0')).Finish(), 9),
                           Compression::kGzip),
             kUnsupported, "200 times"},
        Case{"ratio_zstd", Blob(Zstd(TarBuilder().File("f", std::string(200 << 20, '\0')).Finish()),
                                Compression::kZstd),
             kUnsupported, "200 times"},
        Case{"zstd_window",
             Blob(Zstd(TarBuilder().File("f", std::string(1 << 20, 'w')).Finish(), 28),
                  Compression::kZstd),
             kUnsupported, "window"},
        Case{"gzip_trailing_garbage", Blob(Gzip(Inner()) + "garbage after it", Compression::kGzip),
             kCorrupt},
        Case{"gzip_bad_checksum",
             [](Baker& baker) {
               std::string blob = Gzip(Inner());
               blob[blob.size() - 6] = static_cast<char>(blob[blob.size() - 6] ^ 1);
               Blob(blob, Compression::kGzip)(baker);
             },
             kCorrupt, "checksum"},
        Case{"gzip_empty_file", Blob("", Compression::kGzip), kCorrupt},
        Case{"gzip_members", Blob(Gzip(Inner().substr(0, 700)) + Gzip(Inner().substr(700)),
                                  Compression::kGzip), ""},
        Case{"zstd_frames", Blob(Zstd(Inner().substr(0, 700)) + Zstd(Inner().substr(700)),
                                 Compression::kZstd), ""},
        Case{"mtree", Blob("#mtree\n/set type=file\nf mode=0644 content=/etc/shadow\n",
                           Compression::kNone), kUnsupported, "not a tar"},
        Case{"zeros", Blob(std::string(3 << 20, '\0'), Compression::kNone), ""},
        Case{"zeros_then_something",
             Blob(std::string(3 << 20, '\0') + "something", Compression::kNone), kUnsupported,
             "not a tar"},
        Case{"zip", Blob("PK\3\4" + std::string(600, '\0'), Compression::kNone), kUnsupported},
        Case{"members",
             [](Baker& baker) {
               baker.limits().max_members = 10;
               TarBuilder tar;
               for (int i = 0; i < 11; ++i) tar.File(std::to_string(i), "");
               baker.Layer(tar.Finish());
             },
             kUnsupported, "'10'"}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace bunker::agent::test
