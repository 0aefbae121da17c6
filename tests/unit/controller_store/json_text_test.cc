// The store's JSON against a library that knows JSON.
#include "controller/store/json_text.h"

#include <string>

#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/utf8.h"
#include "controller/store/row_codec.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bunker::controller {
namespace {

std::string RandomText(SeededRng& rng) {
  static const char* const kPieces[] = {"a",  "é", "\"", "\\", "\n", "\x01", "😀",
                                        "\t", "/", "ß",  "{",  "]",  "\xff", "\xed\xa0\x80"};
  std::string text;
  for (uint64_t i = rng.Below(12); i > 0; --i) text += kPieces[rng.Below(std::size(kPieces))];
  return text;
}

Bunker RandomBunker(SeededRng& rng) {
  Bunker row;
  row.id = "bnk_" + std::to_string(rng.Below(1000));
  row.name = RandomText(rng);
  row.status_message = RandomText(rng);
  row.memory_mb = static_cast<uint32_t>(rng.Next());
  row.assignment_version = rng.Next();
  row.timings.boot_ms = static_cast<double>(rng.Next()) / 1e7;
  row.status = static_cast<BunkerStatus>(rng.Below(7));
  for (uint64_t i = rng.Below(4); i > 0; --i) {
    const std::string name = ToValidUtf8(RandomText(rng));  // or two names might become one
    row.env_vars[name] = RandomText(rng);
  }
  row.created_at = absl::FromUnixNanos(static_cast<int64_t>(rng.Next() >> 2));
  if (rng.Below(2) == 0) row.started_at = row.created_at;
  return row;
}

TEST(JsonTextTest, TheLibraryReadsWhatIsWrittenAndWritesWhatIsRead) {
  SeededRng rng(1);
  for (int i = 0; i < 500; ++i) {
    const Bunker row = RandomBunker(rng);
    const std::string text = EncodeRow(row);
    const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, false);
    ASSERT_FALSE(parsed.is_discarded()) << text;
    EXPECT_EQ(parsed["name"], ToValidUtf8(row.name));
    EXPECT_EQ(parsed["memory_mb"], row.memory_mb);
    EXPECT_EQ(parsed["assignment_version"], row.assignment_version);
    EXPECT_EQ(parsed["timings"]["boot_ms"], row.timings.boot_ms);
    EXPECT_EQ(parsed["started_at"].is_null(), !row.started_at.has_value());
    // Its own order of names, its own escapes, and white space.
    for (const bool ascii : {false, true}) {
      Bunker copy;
      const absl::Status status = DecodeRow(parsed.dump(ascii ? 2 : -1, ' ', ascii), &copy);
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_EQ(EncodeRow(copy), text);
    }
  }
}

TEST(JsonTextTest, NoPieceOfARowIsTakenForOne) {
  SeededRng rng(2);
  const std::string text = EncodeRow(RandomBunker(rng));
  for (size_t size = 0; size < text.size(); ++size) {
    Bunker row;
    ASSERT_EQ(DecodeRow(text.substr(0, size), &row).code(), absl::StatusCode::kDataLoss) << size;
  }
  Bunker row;
  EXPECT_FALSE(DecodeRow(text + "x", &row).ok());
  EXPECT_TRUE(DecodeRow(" " + text + "\n", &row).ok());
}

// Whatever is damaged: an answer, the same in kind as the library's, and no crash.
TEST(JsonTextTest, DamagedRowsAreRefusedOrReadAsTheLibraryDoes) {
  SeededRng rng(3);
  const std::string text = EncodeRow(RandomBunker(rng));
  for (int i = 0; i < 5000; ++i) {
    std::string damaged = text;
    damaged[rng.Below(damaged.size())] = static_cast<char>(rng.Below(128));
    Bunker row;
    if (!DecodeRow(damaged, &row).ok()) continue;
    EXPECT_TRUE(nlohmann::json::accept(damaged)) << damaged;
  }
}

TEST(JsonTextTest, RefusesWhatIsNoJson) {
  for (const char* bad : {R"({"name":"a" "id":"b"})", R"({"name":"\x"})", R"({"name":"\ud800"})",
                          R"({"name":"\u12"})", R"({"memory_mb":4294967296})",
                          R"({"memory_mb":-1})", R"({"memory_mb":nan})", R"({"memory_mb":1.5})",
                          R"({"label_set":{"a":1}})", R"({"label_set":["a"]})", R"({"live":tru})",
                          R"({"later":[[[[})", R"({"name":null})", "{,}", R"({"a":1,})"}) {
    Bunker row;
    EXPECT_EQ(DecodeRow(bad, &row).code(), absl::StatusCode::kDataLoss) << bad;
  }
  const std::string deep(100, '[');
  Bunker row;
  EXPECT_FALSE(DecodeRow("{\"later\":" + deep + std::string(100, ']') + "}", &row).ok());
}

}  // namespace
}  // namespace bunker::controller
