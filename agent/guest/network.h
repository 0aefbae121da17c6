// The guest's one network card. May be called again: what is set already stays so.
#pragma once

#include "agent/guest/error.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

// Address, link up, default route, /etc/resolv.conf.
Error BringNetworkUp(const v1::GuestNetwork& network);

}  // namespace bunker::guest
