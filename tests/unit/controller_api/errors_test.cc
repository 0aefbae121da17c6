#include "controller/api/errors.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "common/base/reason.h"

namespace bunker::controller {
namespace {

// The contract's list, word for word: code and HTTP status.
TEST(ErrorsTest, TheTableIsTheContracts) {
  std::string table;
  for (const ErrorRow& row : ErrorTable())
    table += std::string(row.reason) + " " + std::to_string(row.http_status) + "\n";
  EXPECT_EQ(table,
            "NO_SUITABLE_WORKER 503\nWORKER_UNAVAILABLE 503\nBUNKER_QUOTA_EXCEEDED 429\n"
            "NETWORK_PROFILE_DENIED 403\nLIFECYCLE_MODE_DENIED 403\nINTERFACES_NOT_ALLOWED 422\n"
            "TRANSIT_MISSING_INTERFACES 422\nIMAGE_INACTIVE 409\nIMAGE_SCAN_FAILED 409\n"
            "BUNKER_NOT_RUNNING 409\nSTALE_INCARNATION 409\nRESOURCE_IN_USE 409\n"
            "IDEMPOTENCY_CONFLICT 409\nAUTH_TOKEN_MISSING 401\nAUTH_TOKEN_INVALID 401\n"
            "SESSION_EXPIRED 401\nAUTHZ_PERMISSION_DENIED 403\nNOT_FOUND 404\n"
            "PATH_NOT_FOUND 404\nMETHOD_NOT_ALLOWED 405\nUNSUPPORTED_MEDIA_TYPE 415\n"
            "VALIDATION_ERROR 422\nSLUG_CONFLICT 409\nRATE_LIMITED 429\nPAYLOAD_TOO_LARGE 413\n"
            "DISK_FULL 507\nUPSTREAM_TIMEOUT 504\nUNAVAILABLE 503\nINTERNAL 500\n");
  std::set<std::string> reasons;
  for (const ErrorRow& row : ErrorTable()) {
    EXPECT_TRUE(reasons.insert(row.reason).second) << row.reason;
    EXPECT_EQ(FindError(row.reason), &row);
    EXPECT_NE(row.code, absl::StatusCode::kOk);
    // 401, 403 and 404 mean the same on both transports.
    EXPECT_EQ(row.http_status == 401, row.code == absl::StatusCode::kUnauthenticated) << row.reason;
    EXPECT_EQ(row.http_status == 403, row.code == absl::StatusCode::kPermissionDenied)
        << row.reason;
    EXPECT_EQ(row.http_status == 404, row.code == absl::StatusCode::kNotFound) << row.reason;
  }
  EXPECT_EQ(FindError("LAYER_CORRUPT"), nullptr);
}

TEST(ErrorsTest, ErrorsWithoutAReasonOfTheTableGetOne) {
  EXPECT_STREQ(ViewOf(absl::NotFoundError("x")).row->reason, "NOT_FOUND");
  EXPECT_STREQ(ViewOf(absl::InvalidArgumentError("x")).row->reason, "VALIDATION_ERROR");
  EXPECT_STREQ(ViewOf(absl::DeadlineExceededError("x")).row->reason, "UPSTREAM_TIMEOUT");
  EXPECT_STREQ(ViewOf(absl::UnknownError("x")).row->reason, "INTERNAL");
  EXPECT_STREQ(ViewOf(ReasonError(absl::StatusCode::kUnavailable, "SOMETHING", "x")).row->reason,
               "UNAVAILABLE");
}

TEST(ErrorsTest, TheCauseOfAnInternalErrorIsNotTold) {
  const ErrorView view = ViewOf(absl::InternalError("SELECT secret FROM keys"));
  EXPECT_EQ(view.message.find("SELECT"), std::string::npos);
  EXPECT_EQ(ViewOf(absl::DataLossError("/var/lib/x")).message.find("/var"), std::string::npos);
}

TEST(ErrorsTest, DetailsTravelWithTheError) {
  const absl::Status status = WithRetryAfter(
      ValidationError({{"a", "is bad"}, {"b.c", "is worse"}}), absl::Milliseconds(1500));
  EXPECT_EQ(status.message(), "a: is bad (and 1 more, see details)");
  const ErrorView view = ViewOf(Annotate(status, "context"));
  ASSERT_EQ(view.violations.size(), 2u);
  EXPECT_EQ(view.violations[1].field, "b.c");
  EXPECT_EQ(view.retry_after, absl::Milliseconds(1500));
  EXPECT_FALSE(view.placement.has_value());
}

}  // namespace
}  // namespace bunker::controller
