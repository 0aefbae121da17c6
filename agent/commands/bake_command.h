// `bunker-agent bake`: pulls an image and bakes it into one file, by hand, the way the daemon does
// it: the same puller, the same blob store, the same confined child. Needs no daemon.
#pragma once

#include <cstdint>
#include <string>

namespace bunker::agent {

struct BakeCommandOptions {
  std::string source;       // as ParseBakeSource() takes it
  std::string out;          // must not exist; appears whole or not at all
  std::string tree;         // where the fs-verity tree goes; empty: it is not kept
  std::string config_path;  // empty: defaults, no file is read
  std::string blobs;        // folder that keeps pulled layers; empty: a temporary one
  std::string arch;         // X86_64, AARCH64, amd64 or arm64; empty: this host's
  uint32_t size_mib = 0;
  bool json = false;
  bool quiet = false;
};

// Prints and returns an exit code of exit_codes.h. Takes over SIGINT, SIGTERM and SIGHUP; call it
// before any other thread is started.
int RunBakeCommand(const BakeCommandOptions& options);

}  // namespace bunker::agent
