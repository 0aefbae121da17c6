#include "controller/api/auth.h"

#include <string>

#include <gtest/gtest.h>

#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "controller/api/errors.h"

namespace bunker::controller {
namespace {

TEST(AuthTest, KeysAreHashed) {
  EXPECT_EQ(*KeyHashOf("Bearer sgk_abc"), Sha256Hex("sgk_abc"));
  EXPECT_EQ(*KeyHashOf("bearer   sgk_abc"), Sha256Hex("sgk_abc"));
  EXPECT_EQ(ReasonOf(KeyHashOf("").status()), "AUTH_TOKEN_MISSING");
  for (const char* bad : {"Bearer", "Bearer ", "Basic abc", "sgk_abc", "Bearersgk_abc", "B"})
    EXPECT_EQ(ReasonOf(KeyHashOf(bad).status()), "AUTH_TOKEN_INVALID") << bad;
  EXPECT_FALSE(KeyHashOf("Bearer " + std::string(300, 'a')).ok());
}

TEST(AuthTest, RolesGrantWhatTheContractSays) {
  EXPECT_TRUE(PermissionsOf(Role::kTenantViewer).empty());
  EXPECT_EQ(PermissionsOf(Role::kTenantUser),
            (std::set<std::string>{"scaibunker:create", "scaibunker:create:session",
                                   "scaibunker:execute", "scaibunker:files",
                                   "scaibunker:network:registry", "scaibunker:root",
                                   "scaibunker:shell"}));
  EXPECT_EQ(PermissionsOf(Role::kSuperAdmin).size(), 16u);
  for (const Role role : {Role::kTenantAdmin, Role::kPartnerAdmin}) {
    EXPECT_EQ(PermissionsOf(role).size(), 15u);
    EXPECT_EQ(PermissionsOf(role).count("scaibunker:admin:platform"), 0u);
  }
}

TEST(RateLimiterTest, BurstThenRate) {
  RateLimiter limiter(10, 3);
  const absl::Time start = absl::FromUnixSeconds(1000);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limiter.Take("a", start).ok());
  const absl::Status refused = limiter.Take("a", start);
  EXPECT_EQ(ReasonOf(refused), "RATE_LIMITED");
  EXPECT_EQ(ViewOf(refused).retry_after, absl::Milliseconds(100));
  EXPECT_TRUE(limiter.Take("b", start).ok());  // another key's bucket is its own
  EXPECT_FALSE(limiter.Take("a", start + absl::Milliseconds(99)).ok());
  EXPECT_TRUE(limiter.Take("a", start + absl::Milliseconds(101)).ok());
  EXPECT_FALSE(limiter.Take("a", start + absl::Milliseconds(102)).ok());
  // No more than the burst, however long it was quiet; and a clock that goes back takes nothing.
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limiter.Take("a", start + absl::Hours(1)).ok());
  EXPECT_FALSE(limiter.Take("a", start + absl::Hours(1)).ok());
  EXPECT_FALSE(limiter.Take("a", start).ok());
}

TEST(RateLimiterTest, QuietKeysAreForgotten) {
  RateLimiter limiter(10, 3);
  const absl::Time start = absl::FromUnixSeconds(1000);
  for (int i = 0; i < 1000; ++i) (void)limiter.Take("key" + std::to_string(i), start);
  EXPECT_EQ(limiter.size(), 1000u);
  (void)limiter.Take("late", start + absl::Minutes(2));
  EXPECT_EQ(limiter.size(), 1u);
}

}  // namespace
}  // namespace bunker::controller
