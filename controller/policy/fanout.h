// Which images belong on which workers. Pure and level-triggered: called with the world as it is,
// it says what is wanted, whatever was wanted before.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "controller/model/cache_entry.h"
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

// Whether `group` pairs the two; an inactive image is in no pair.
bool Pairs(const Group& group, const Image& image, const Worker& worker);

// What `image` wants of `worker`: nothing where none of `groups` pairs them, kNone where it is
// wanted there, else why it is left out. `groups` may hold more than what concerns the image.
std::optional<SkipReason> Want(const Image& image, const std::vector<const Group*>& groups,
                               const Worker& worker);

// The same for every worker that a group pairs the image with: the workers in scope. `workers` may
// hold more than what concerns the image.
std::map<std::string, SkipReason> FanOut(const Image& image,
                                         const std::vector<const Group*>& groups,
                                         const std::map<std::string, const Worker*>& workers);

// Whether `image` could be of use on `worker` at all: kNone, kWrongArch or kTooLarge.
SkipReason Suits(const Image& image, const Worker& worker);

}  // namespace bunker::controller
