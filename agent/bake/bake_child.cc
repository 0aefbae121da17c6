#include "agent/bake/bake_child.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <clocale>
#include <cstdlib>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "agent/bake/bake_job.h"
#include "agent/bake/bake_supervisor.h"
#include "agent/bake/layer_feed.h"
#include "agent/confined/confine.h"
#include "agent/confined/frame_pipe.h"
#include "bunker/bake/v1/bake_child.pb.h"
#include "common/base/mutex.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

namespace pb = bunker::bake::v1;

constexpr size_t kMaxMessageBytes = 4096;
constexpr auto kProgressEvery = std::chrono::milliseconds(100);

// Sends the progress ten times a second until it goes out of scope.
class ProgressSender {
 public:
  explicit ProgressSender(const std::atomic<uint64_t>* consumed)
      : thread_([this, consumed] { Run(consumed); }) {}
  ~ProgressSender() {
    {
      MutexLock lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }

 private:
  void Run(const std::atomic<uint64_t>* consumed) {
    MutexLock lock(mutex_);
    while (!stop_) {
      pb::BakeEvent event;
      event.mutable_progress()->set_bytes_done(consumed->load(std::memory_order_relaxed));
      // The parent reads until the end; if it is gone, the kernel ends this process, too.
      (void)WriteFrame(kEventFd, event);
      changed_.wait_for(lock.native(), kProgressEvery);
    }
  }

  Mutex mutex_;
  CondVar changed_;
  bool stop_ = false;
  std::thread thread_;
};

Compression FromProto(pb::Compression compression) {
  switch (compression) {
    case pb::COMPRESSION_GZIP:
      return Compression::kGzip;
    case pb::COMPRESSION_ZSTD:
      return Compression::kZstd;
    default:
      return Compression::kNone;
  }
}

absl::StatusOr<BakeSummary> RunRequest(const pb::BakeRequest& request) {
  std::vector<LayerInput> layers;
  BakeInputs inputs;
  inputs.out_fd = kImageFd;
  inputs.tree_fd = request.keep_tree() ? kTreeFd : -1;
  std::unique_ptr<FeedReader> feed;
  if (request.followed()) {
    ASSIGN_OR_RETURN(feed, FeedReader::Map(UniqueFd(kFeedFd)));
  }
  for (const pb::Layer& layer : request.layers()) {
    UniqueFd fd(kFirstLayerFd + static_cast<int>(layers.size()));
    if (feed != nullptr) {
      inputs.sources.push_back(std::make_unique<FollowedLayerSource>(
          std::move(fd), feed.get(), layers.size(), layer.size_bytes()));
    } else {
      inputs.sources.push_back(std::make_unique<FdLayerSource>(std::move(fd)));
    }
    layers.push_back(LayerInput{"", FromProto(layer.compression()), layer.blob_digest(),
                                layer.diff_id(), layer.size_bytes()});
  }
  BakeLimits limits;
  limits.max_members = request.limits().max_members();
  limits.max_ratio = request.limits().max_ratio();
  limits.ratio_free_bytes = request.limits().ratio_free_bytes();
  std::atomic<uint64_t> consumed{0};
  const ProgressSender sender(&consumed);
  return RunBake(layers, request.size_mib(), limits, inputs, &consumed);
}

absl::StatusOr<BakeSummary> ConfineAndRun() {
  pb::BakeRequest request;
  RETURN_IF_ERROR(ReadOneFrame(kRequestFd, &request));
  // Before the files are gone: libarchive needs a locale to hand out names.
  if (setlocale(LC_ALL, "C.UTF-8") == nullptr) {
    return absl::FailedPreconditionError("the C.UTF-8 locale is missing on this worker");
  }
  Confinement confinement;
  confinement.uid = request.uid();
  confinement.gid = request.gid();
  confinement.memory_bytes = request.limits().memory_bytes();
  confinement.cpu_seconds = request.limits().cpu_seconds();
  confinement.file_bytes = uint64_t{request.size_mib()} << 20;
  RETURN_IF_ERROR(Confine(confinement));
  return RunRequest(request);
}

void FillSummary(const BakeSummary& summary, pb::Summary* out) {
  out->set_recipe_digest(summary.recipe_digest);
  out->set_rootfs_digest(summary.rootfs_digest);
  for (const std::string& diff_id : summary.diff_ids) out->add_diff_ids(diff_id);
  out->set_apparent_bytes(summary.apparent_bytes);
  out->set_entries(summary.entries);
  out->set_dropped_xattr_count(summary.dropped_xattr_count);
  for (const std::string& dropped : summary.dropped_xattrs) out->add_dropped_xattrs(dropped);
  out->set_compressed_bytes(summary.compressed_bytes);
  out->set_uncompressed_bytes(summary.uncompressed_bytes);
  out->set_reread_layers(summary.reread_layers);
  for (const BakeStage& stage : summary.stages) {
    pb::Stage* added = out->add_stages();
    added->set_name(stage.name);
    added->set_cpu_seconds(stage.cpu_seconds);
  }
  out->set_wall_seconds(summary.wall_seconds);
  out->set_cpu_seconds(summary.cpu_seconds);
  out->set_peak_rss_bytes(summary.peak_rss_bytes);
}

// The standard library reports a thread that cannot be made by throwing; nobody catches here.
[[noreturn]] void OnTerminate() {
  if (const std::exception_ptr thrown = std::current_exception()) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
      if (error.code() == std::errc::resource_unavailable_try_again) _exit(kExitOutOfMemory);
    } catch (...) {
    }
  }
  abort();
}

}  // namespace

int BakeChildMain() {
  // Buffers go back to the kernel when they are freed: left to itself, the heap would keep them for
  // as long as the bake runs, in the arena of whichever thread made them.
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  std::set_new_handler([] { _exit(kExitOutOfMemory); });
  std::set_terminate(&OnTerminate);
  const absl::StatusOr<BakeSummary> summary = ConfineAndRun();
  pb::BakeEvent event;
  if (summary.ok()) {
    FillSummary(*summary, event.mutable_summary());
  } else {
    pb::Failure* failure = event.mutable_failure();
    const absl::Status& status = summary.status();
    failure->set_code(static_cast<int>(status.code()));
    failure->set_reason(ReasonOf(status));
    failure->set_message(status.message().data(),
                         std::min(status.message().size(), kMaxMessageBytes));
  }
  const bool sent = WriteFrame(kEventFd, event).ok();
  _exit(sent ? 0 : 1);
}

}  // namespace bunker::agent
