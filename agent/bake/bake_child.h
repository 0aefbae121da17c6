// What the two ends of a bake agree on: descriptor numbers and exit codes.
#pragma once

namespace bunker::agent {

// The child's descriptors, in this order; the layers follow, bottom first.
enum BakeChildFd : int {
  kRequestFd = 3,  // a memory file with one BakeRequest frame
  kEventFd = 4,    // BakeEvent frames, outwards
  kImageFd = 5,
  kTreeFd = 6,
  kFeedFd = 7,  // how far the blobs have come (layer_feed.h), where some are still under way
  kFirstLayerFd = 8,
};
inline constexpr int kMaxLayers = 256;

inline constexpr int kExitOutOfMemory = 77;

}  // namespace bunker::agent
