// Which images belong on which workers. Pure and level-triggered: called with the world as it is,
// it says what is wanted, whatever was wanted before.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "controller/model/group.h"
#include "controller/model/image.h"
#include "controller/model/worker.h"

namespace bunker::controller {

// Whether a group may hold that image: its owner may use the image.
bool GroupMayHold(const Group& group, const Image& image);

// Whether one who belongs to `viewer` may land on the worker: its own, its partner's, and the
// platform's where they are shared. The platform itself uses all of the platform's.
bool MayUseWorker(const Ownership& viewer, const Worker& worker);

// Whether `group` pairs the image with its workers.
bool GroupHolds(const Group& group, const Image& image);

enum class WantReason {
  kWanted,
  kWrongArch,  // skipped: the file would be of no use there
  kTooLarge,   // skipped: it can never fit
};

// What `image` wants of each worker that a group pairs it with: the workers in scope. An inactive
// image wants nothing. `groups` and `workers` may hold more than what concerns the image.
std::map<std::string, WantReason> FanOut(const Image& image,
                                         const std::vector<const Group*>& groups,
                                         const std::map<std::string, const Worker*>& workers);

// Whether `image` could be of use on `worker` at all.
WantReason Suits(const Image& image, const Worker& worker);

}  // namespace bunker::controller
