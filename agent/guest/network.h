// The guest's network cards. May be called again: what is set already stays so.
#pragma once

#include <string>
#include <vector>

#include "agent/guest/error.h"
#include "bunker/guest/v1/guest.pb.h"

namespace bunker::guest {

// Of the first card: address, link up, default route.
Error BringNetworkUp(const v1::GuestNetwork& network);
// Makes /etc/resolv.conf a file that names this one.
Error WriteResolver(const std::string& nameserver);

// Each card in its turn gets its MAC and its name while it is down, then address, link up and
// default route: of several routes the first one is used. All are tried; one line per failure.
std::vector<std::string> BringInterfacesUp(
    const google::protobuf::RepeatedPtrField<v1::GuestInterface>& wanted);

}  // namespace bunker::guest
