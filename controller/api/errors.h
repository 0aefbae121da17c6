// The ONE table of error codes: reason ↔ gRPC code ↔ HTTP status, and the details that travel
// with an error. Everything that answers a client goes through here.
//
// Thread-safe: free functions without state.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bunker/v1/common.pb.h"

namespace bunker::controller {

struct ErrorRow {
  const char* reason;
  absl::StatusCode code;
  int http_status;
};

// Every code that a client may see, in the order of the contract.
const std::vector<ErrorRow>& ErrorTable();

// The row of `reason`, or nullptr.
const ErrorRow* FindError(std::string_view reason);

// One field that was refused. `field` is the path as the client wrote it ("env_vars.PATH").
struct FieldViolation {
  std::string field;
  std::string message;
};

// VALIDATION_ERROR with its details; the message is the first violation's, with its field.
// REQUIRES: `violations` is not empty.
absl::Status ValidationError(const std::vector<FieldViolation>& violations);
absl::Status ValidationError(std::string_view field, std::string_view message);

// An error of the table; its canonical code comes from there.
// REQUIRES: `reason` is in the table.
absl::Status ApiError(std::string_view reason, std::string_view message);

absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after);
absl::Status WithPlacement(absl::Status status, const v1::PlacementFailure& failure);

// What a client is told of an error.
struct ErrorView {
  const ErrorRow* row = nullptr;
  std::string message;
  std::vector<FieldViolation> violations;
  std::optional<v1::PlacementFailure> placement;
  std::optional<absl::Duration> retry_after;
};

// Maps any error. One without a reason of the table gets the row of its canonical code. Of an
// INTERNAL one the cause is kept out: it belongs into the log, beside the request id.
// REQUIRES: !status.ok().
ErrorView ViewOf(const absl::Status& status);

}  // namespace bunker::controller
