// The confined child that takes an inventory: descriptors, and its main function.
#pragma once

namespace bunker::agent {

enum ScanChildFd : int {
  kScanRequestFd = 3,  // a memory file with one ChildRequest frame
  kScanEventFd = 4,    // ChildEvent frames, outwards
  kScanImageFd = 5,    // the baked file, read-only
};

// argv[1] of the child, and its main function. It never returns to the caller's code.
inline constexpr char kScanChildArgument[] = "scan-child";
[[noreturn]] void ScanChildMain();

}  // namespace bunker::agent
