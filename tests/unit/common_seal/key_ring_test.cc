#include "common/seal/key_ring.h"

#include <sys/stat.h>

#include <set>

#include "common/base/files.h"
#include "common/base/hex.h"
#include "gtest/gtest.h"
#include "tests/support/temp_dir.h"

namespace bunker {
namespace {

const std::string kSecret = "canary-p4ss";

KeyRing Ring(const std::string& text) {
  auto ring = KeyRing::Parse(text, "test");
  EXPECT_TRUE(ring.ok()) << ring.status();
  return *std::move(ring);
}

TEST(KeyRingTest, OpensWhatItSealed) {
  const KeyRing ring = Ring(KeyRing::NewKey());
  for (const std::string& secret : {std::string(), std::string("x"), kSecret,
                                    std::string(32u << 10, 'k'), std::string("\0\xff\n", 3)}) {
    const std::string sealed = ring.Seal(secret, "row 1");
    EXPECT_EQ(ring.Open(sealed, "row 1").value_or("?"), secret);
    EXPECT_TRUE(ring.IsCurrent(sealed));
    if (secret.size() > 8) {
      EXPECT_EQ(sealed.find(secret), std::string::npos);
    }
  }
}

// RFC 4231, test case 2.
TEST(HmacTest, KnownAnswer) {
  EXPECT_EQ(HexEncode(HmacSha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

// The published AES-256-GCM vector of a zero key and nonce over one zero block.
TEST(AeadTest, OpensAKnownAnswer) {
  std::string sealed;
  ASSERT_TRUE(
      HexDecode("000000000000000000000000cea7403d4d606b6e074ec5d3baf39d18"
                "d0d1c8a799996bf0265b98b5d48ab919",
                &sealed));
  EXPECT_EQ(AeadOpen(std::string(32, '\0'), "", sealed), std::string(16, '\0'));
  EXPECT_EQ(AeadOpen(std::string(32, '\1'), "", sealed), std::nullopt);
  EXPECT_EQ(AeadOpen(std::string(32, '\0'), "x", sealed), std::nullopt);
  for (size_t length = 0; length < 28; ++length)
    EXPECT_EQ(AeadOpen(std::string(32, '\0'), "", sealed.substr(0, length)), std::nullopt);
}

TEST(KeyRingTest, NeverSealsAlike) {
  const KeyRing ring = Ring(KeyRing::NewKey());
  std::set<std::string> all;
  for (int i = 0; i < 1000; ++i) all.insert(ring.Seal(kSecret, "row"));
  EXPECT_EQ(all.size(), 1000u);
}

TEST(KeyRingTest, IsBoundToItsRow) {
  const KeyRing ring = Ring(KeyRing::NewKey());
  const std::string sealed = ring.Seal(kSecret, "rcr_1\nghcr.io\nada");
  for (const char* other : {"rcr_2\nghcr.io\nada", "rcr_1\nevil.example\nada", ""})
    EXPECT_EQ(ring.Open(sealed, other).status().code(), absl::StatusCode::kDataLoss);
}

TEST(KeyRingTest, NoticesEveryChangedCharacter) {
  const KeyRing ring = Ring(KeyRing::NewKey());
  const std::string sealed = ring.Seal(kSecret, "row");
  for (size_t i = 0; i < sealed.size(); ++i) {
    std::string changed = sealed;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const auto opened = ring.Open(changed, "row");
    // The last digit of base64 may have bits that mean nothing.
    if (opened.ok()) {
      EXPECT_GE(i + 3, sealed.size()) << i;
      EXPECT_EQ(*opened, kSecret);
    }
  }
  for (size_t length = 0; length < sealed.size(); ++length) {
    const auto opened = ring.Open(sealed.substr(0, length), "row");
    if (opened.ok()) {
      EXPECT_GE(length + 3, sealed.size());  // less the padding
    }
  }
}

TEST(KeyRingTest, TheFirstKeySealsAndAllOpen) {
  const std::string old_key = KeyRing::NewKey();
  const std::string new_key = KeyRing::NewKey();
  const std::string sealed = Ring(old_key).Seal(kSecret, "row");
  const KeyRing both = Ring("# newest first\n" + new_key + "\n\n" + old_key + "\r\n");
  EXPECT_EQ(both.size(), 2u);
  EXPECT_EQ(both.Open(sealed, "row").value_or("?"), kSecret);
  EXPECT_FALSE(both.IsCurrent(sealed));
  const std::string anew = both.Seal(kSecret, "row");
  EXPECT_EQ(Ring(new_key).Open(anew, "row").value_or("?"), kSecret);
  EXPECT_EQ(Ring(new_key).Open(sealed, "row").status().code(), absl::StatusCode::kNotFound);
}

TEST(KeyRingTest, DerivesOneKeyAPurpose) {
  const std::string line = KeyRing::NewKey();
  EXPECT_EQ(Ring(line).Derive("a"), Ring(line).Derive("a"));
  EXPECT_NE(Ring(line).Derive("a"), Ring(line).Derive("b"));
  EXPECT_NE(Ring(line).Derive("a"), Ring(KeyRing::NewKey()).Derive("a"));
  EXPECT_EQ(Ring(line).Derive("a").size(), 32u);
}

TEST(KeyRingTest, RefusesFilesWithoutTellingTheirContent) {
  for (const std::string& text :
       {std::string(), std::string("\n# no key\n"), kSecret, KeyRing::NewKey() + "0",
        KeyRing::NewKey().substr(2), KeyRing::NewKey() + "\n" + kSecret}) {
    const auto ring = KeyRing::Parse(text, "keys");
    EXPECT_EQ(ring.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(std::string(ring.status().message()).find(kSecret), std::string::npos);
  }
  std::string many;
  for (int i = 0; i < 17; ++i) many += KeyRing::NewKey() + "\n";
  EXPECT_FALSE(KeyRing::Parse(many, "keys").ok());
}

TEST(KeyRingTest, RefusesAFileThatOthersMayRead) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/keys";
  EXPECT_EQ(KeyRing::Load(path).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileDurably(path, KeyRing::NewKey() + "\n", 0600).ok());
  EXPECT_TRUE(KeyRing::Load(path).ok());
  for (const mode_t mode : {0640u, 0604u, 0660u}) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    EXPECT_EQ(KeyRing::Load(path).status().code(), absl::StatusCode::kFailedPrecondition) << mode;
  }
}

}  // namespace
}  // namespace bunker
