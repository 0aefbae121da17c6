// Finding out what is in a baked image, and, where an external program does it, what is wrong with
// that.
//
// Scanners are thread-safe and blocking: call them from pool threads.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bunker/scan/v1/inventory.pb.h"
#include "common/base/cancel.h"

namespace bunker::agent {

struct ScanOptions {
  std::string scanner = "builtin";  // builtin | trivy | grype | debsecan | none
  std::string command;              // of the external ones: an absolute path
  std::string source;               // debsecan: the URL of its data; else unused
  std::string cache_dir;            // trivy, grype: their databases; read-only for them
  bool network = false;             // the external program may use the host's network
  std::string work_dir;             // for what is handed to it; made and emptied by the scanner
  uid_t uid = 64020;                // of every child; not root, nothing else runs as it
  uint32_t cpu_seconds = 300;
  uint64_t memory_bytes = uint64_t{2} << 30;
  absl::Duration deadline = absl::Minutes(10);
};

class Scanner {
 public:
  virtual ~Scanner() = default;

  // `rootfs_path`: a baked file, which nobody changes or removes meanwhile. Errors say in their
  // message what an operator can do.
  virtual absl::StatusOr<scan::v1::ScanOutput> Scan(const std::string& rootfs_path,
                                                    CancelToken& cancel) = 0;
};

// The one that the options name. An unknown name or a missing path is an error.
absl::StatusOr<std::unique_ptr<Scanner>> MakeScanner(const ScanOptions& options);

// The built-in reading of the file, in a confined child. What every scanner begins with.
absl::StatusOr<scan::v1::Inventory> InventoryOf(const std::string& rootfs_path,
                                                const ScanOptions& options, CancelToken& cancel);

}  // namespace bunker::agent
