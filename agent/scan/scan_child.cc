#include "agent/scan/scan_child.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "agent/confined/confine.h"
#include "agent/confined/frame_pipe.h"
#include "agent/scan/inventory.h"
#include "bunker/scan/v1/inventory.pb.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr int kLowestPriority = 19;
constexpr int kPackagesPerFrame = 200;
constexpr size_t kMaxMessageBytes = 1024;

absl::StatusOr<scan::v1::Inventory> ConfineAndRun() {
  scan::v1::ChildRequest request;
  RETURN_IF_ERROR(ReadOneFrame(kScanRequestFd, &request));
  Confinement confinement;
  confinement.uid = request.uid();
  confinement.gid = request.gid();
  confinement.memory_bytes = request.memory_bytes();
  confinement.cpu_seconds = request.cpu_seconds();
  confinement.file_bytes = 0;  // it writes into a pipe alone
  RETURN_IF_ERROR(Confine(confinement));
  return TakeInventory(kScanImageFd);
}

absl::Status Send(scan::v1::Inventory inventory) {
  scan::v1::ChildEvent event;
  event.mutable_part()->mutable_distribution()->Swap(inventory.mutable_distribution());
  event.mutable_part()->mutable_problems()->Swap(inventory.mutable_problems());
  for (scan::v1::Package& package : *inventory.mutable_packages()) {
    event.mutable_part()->add_packages()->Swap(&package);
    if (event.part().packages_size() < kPackagesPerFrame) continue;
    RETURN_IF_ERROR(WriteFrame(kScanEventFd, event));
    event.Clear();
  }
  if (event.has_part()) RETURN_IF_ERROR(WriteFrame(kScanEventFd, event));
  event.Clear();
  event.mutable_done();
  return WriteFrame(kScanEventFd, event);
}

}  // namespace

void ScanChildMain() {
  std::set_new_handler([] { _exit(1); });
  // Whatever else the worker does comes first. Where the kernel refuses, it is only less polite.
  (void)setpriority(PRIO_PROCESS, 0, kLowestPriority);
  absl::StatusOr<scan::v1::Inventory> inventory = ConfineAndRun();
  if (inventory.ok()) _exit(Send(*std::move(inventory)).ok() ? 0 : 1);
  scan::v1::ChildEvent event;
  const absl::string_view message = inventory.status().message();
  event.mutable_failed()->set_message(message.data(), std::min(message.size(), kMaxMessageBytes));
  _exit(WriteFrame(kScanEventFd, event).ok() ? 0 : 1);
}

}  // namespace bunker::agent
