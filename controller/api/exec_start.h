// What a request to run something asks of the guest.
#pragma once

#include "bunker/link/v1/agent_link.pb.h"
#include "bunker/v1/bunker.pb.h"
#include "controller/api/auth.h"

namespace bunker::controller {

// But for its time-out and its stdin. Who may not be root is not, in any spelling. Pure.
link::v1::ExecStart ExecStartOf(const v1::ExecRequest& request, const Caller& caller);

}  // namespace bunker::controller
