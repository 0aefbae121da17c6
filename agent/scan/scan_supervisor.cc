// The parent's side of the confined child.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/confined/child_process.h"
#include "agent/confined/frame_pipe.h"
#include "agent/scan/scan_child.h"
#include "agent/scan/scan_limits.h"
#include "agent/scan/scanner.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

absl::StatusOr<UniqueFd> RequestFile(const ScanOptions& options) {
  UniqueFd fd(memfd_create("scan-request", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoError(errno, "memfd_create");
  scan::v1::ChildRequest request;
  request.set_uid(options.uid);
  request.set_gid(options.uid);
  request.set_memory_bytes(options.memory_bytes);
  request.set_cpu_seconds(options.cpu_seconds);
  RETURN_IF_ERROR(WriteFrame(fd.get(), request));
  // The child has it open: memory that it could grow would be bounded by nothing of ours.
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return ErrnoError(errno, "sealing the request");
  if (lseek(fd.get(), 0, SEEK_SET) != 0) return ErrnoError(errno, "lseek");
  return fd;
}

// How a child that did not finish ended.
absl::Status Explain(const ChildEnd& end, const ScanOptions& options) {
  if (end.timed_out) {
    return absl::DeadlineExceededError(absl::StrCat("reading the image took longer than ",
                                                    absl::FormatDuration(options.deadline)));
  }
  if (end.signal == SIGXCPU) {
    return absl::ResourceExhaustedError(
        absl::StrCat("reading the image took more than ", options.cpu_seconds, " CPU seconds"));
  }
  return absl::InternalError(absl::StrCat("the process that reads the image failed (exit ",
                                          end.exit_code, ", signal ", end.signal, ")"));
}

}  // namespace

absl::StatusOr<scan::v1::Inventory> InventoryOf(const std::string& rootfs_path,
                                                const ScanOptions& options, CancelToken& cancel) {
  RETURN_IF_ERROR(cancel.Check());
  const UniqueFd image(open(rootfs_path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!image) return ErrnoError(errno, "opening the baked file");
  ASSIGN_OR_RETURN(const UniqueFd request, RequestFile(options));
  ChildProcess child;
  RETURN_IF_ERROR(child.Start("bunker-scan", kScanChildArgument,
                              {request.get(), ChildProcess::kEventPipe, image.get()}));
  cancel.SetCallback([&child] { child.Kill(); });
  scan::v1::Inventory inventory;
  bool done = false;
  std::optional<std::string> failure;
  const auto on_frame = [&](const std::string& payload) {
    scan::v1::ChildEvent event;
    if (done || failure || !event.ParseFromString(payload)) return;
    if (event.has_part()) {
      // The child is not to be relied upon.
      const auto count = static_cast<size_t>(inventory.packages_size()) +
                         static_cast<size_t>(event.part().packages_size());
      if (count > kMaxPackages) return child.Kill();
      inventory.MergeFrom(event.part());
    }
    done = event.has_done();
    if (event.has_failed()) failure = event.failed().message();
  };
  const Deadline deadline(options.deadline);
  const ChildEnd end = child.Wait([&] { return deadline.Remaining(); }, on_frame);
  cancel.ClearCallback();
  RETURN_IF_ERROR(cancel.Check());
  if (failure) return absl::InvalidArgumentError(*failure);
  if (!done || end.exit_code != 0) return Explain(end, options);
  return inventory;
}

}  // namespace bunker::agent
