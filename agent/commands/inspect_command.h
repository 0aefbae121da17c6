// `bunker-agent inspect`: what a baked file says about itself, and whether that is still true.
#pragma once

#include <string>

namespace bunker::agent {

struct InspectCommandOptions {
  std::string file;
  std::string tree;  // empty: FILE.verity where that is there
  bool json = false;
};

// Prints and returns an exit code of exit_codes.h: kExitImage where the file is none of ours, is
// damaged, or is not the one that the tree was kept for.
int RunInspectCommand(const InspectCommandOptions& options);

}  // namespace bunker::agent
