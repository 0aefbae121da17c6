// Between the engine's plain rows and the link's messages.
//
// Thread-safe: pure functions.
#pragma once

#include "absl/status/statusor.h"
#include "bunker/link/v1/agent_link.pb.h"
#include "controller/model/link_rows.h"
#include "controller/model/worker.h"

namespace bunker::controller {

link::v1::Assignment ToProto(const DesiredRow& row);

// VALIDATION_ERROR where the row lacks its content, or its name is not the content's.
absl::StatusOr<ObservedRow> FromProto(const link::v1::Observation& row);

WorkerFacts FromProto(const link::v1::WorkerFacts& facts);

}  // namespace bunker::controller
