#include "agent/bake/bake_supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "agent/bake/bake_child.h"
#include "agent/bake/bake_error.h"
#include "agent/bake/layer_feed.h"
#include "agent/confined/child_process.h"
#include "agent/confined/frame_pipe.h"
#include "bunker/bake/v1/bake_child.pb.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

namespace pb = bunker::bake::v1;

constexpr absl::Duration kProgressEvery = absl::Milliseconds(80);
// What an image's layers have to come with on the whole, while a bake waits for them.
constexpr double kPullBytesPerSecond = 256 << 10;

absl::Duration PullTime(uint64_t bytes) {
  return absl::Seconds(static_cast<double>(bytes) / kPullBytesPerSecond);
}

// A file that is gone again unless it is kept.
class OutputFile {
 public:
  absl::Status Create(const std::string& path) {
    fd_.reset(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd_) return ErrnoError(errno, absl::StrCat("creating ", path));
    path_ = path;
    return absl::OkStatus();
  }
  ~OutputFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  // Read-only for everybody, and on disk.
  absl::Status Finish() {
    if (path_.empty() || (fchmod(fd_.get(), 0444) == 0 && fsync(fd_.get()) == 0)) {
      return absl::OkStatus();
    }
    return ErrnoError(errno, absl::StrCat("finishing ", path_));
  }
  void Keep() { path_.clear(); }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  std::string path_;
};

bool IsDigest(std::string_view text, std::string_view prefix = "sha256:") {
  if (text.size() != prefix.size() + 64 || text.substr(0, prefix.size()) != prefix) return false;
  return std::all_of(text.begin() + prefix.size(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

absl::Status Check(const BakeOptions& options) {
  if (options.layers.empty()) return LayerRefused("the image has no layers");
  if (options.layers.size() > kMaxLayers) {
    return LayerRefused(absl::StrCat("the image has ", options.layers.size(), " layers, at most ",
                                     kMaxLayers, " are supported; squash some of them"));
  }
  if (options.size_mib == 0) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "SIZE_CAP_EXCEEDED",
                       "size_mib must not be 0");
  }
  if (options.child_uid == 0 || options.child_gid == 0) {
    return BakeInternal("the bake's user must not be root; set it in the agent's configuration");
  }
  for (const LayerInput& layer : options.layers) {
    for (const std::string* digest : {&layer.blob_digest, &layer.diff_id}) {
      if (!digest->empty() && !IsDigest(*digest)) {
        return LayerRefused(absl::StrCat("'", Printable(*digest), "' is not a sha256 digest"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status OpenLayers(const BakeOptions& options, std::vector<UniqueFd>* fds,
                        uint64_t* total_bytes) {
  for (const LayerInput& layer : options.layers) {
    UniqueFd fd(layer.fd >= 0 ? fcntl(layer.fd, F_DUPFD_CLOEXEC, 0)
                              : open(layer.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    struct stat status {};
    if (!fd || fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
      return WithReason(ErrnoError(fd ? EINVAL : errno, absl::StrCat("opening ", layer.path)),
                        "SOURCE_NOT_READABLE");
    }
    *total_bytes +=
        options.feed != nullptr ? layer.size_bytes : static_cast<uint64_t>(status.st_size);
    fds->push_back(std::move(fd));
  }
  return absl::OkStatus();
}

pb::BakeRequest ToProto(const BakeOptions& options) {
  pb::BakeRequest request;
  for (const LayerInput& layer : options.layers) {
    pb::Layer* added = request.add_layers();
    added->set_compression(layer.compression == Compression::kGzip   ? pb::COMPRESSION_GZIP
                           : layer.compression == Compression::kZstd ? pb::COMPRESSION_ZSTD
                                                                     : pb::COMPRESSION_NONE);
    added->set_blob_digest(layer.blob_digest);
    added->set_diff_id(layer.diff_id);
    added->set_size_bytes(layer.size_bytes);
  }
  request.set_size_mib(options.size_mib);
  request.set_keep_tree(!options.tree_path.empty());
  request.mutable_limits()->set_max_members(options.limits.max_members);
  request.mutable_limits()->set_max_ratio(options.limits.max_ratio);
  request.mutable_limits()->set_ratio_free_bytes(options.limits.ratio_free_bytes);
  request.mutable_limits()->set_cpu_seconds(options.limits.cpu_seconds);
  request.mutable_limits()->set_memory_bytes(options.limits.memory_bytes);
  request.set_uid(options.child_uid);
  request.set_gid(options.child_gid);
  request.set_followed(options.feed != nullptr);
  return request;
}

absl::StatusOr<UniqueFd> RequestFile(const BakeOptions& options) {
  UniqueFd fd(memfd_create("bake-request", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoError(errno, "memfd_create");
  RETURN_IF_ERROR(WriteFrame(fd.get(), ToProto(options)));
  // The child has it open: memory that it could grow would be bounded by nothing of ours.
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return ErrnoError(errno, "sealing the request");
  if (lseek(fd.get(), 0, SEEK_SET) != 0) return ErrnoError(errno, "lseek");
  return fd;
}

BakeSummary FromProto(const pb::Summary& in) {
  BakeSummary summary;
  summary.recipe_digest = in.recipe_digest();
  summary.rootfs_digest = in.rootfs_digest();
  summary.diff_ids.assign(in.diff_ids().begin(), in.diff_ids().end());
  summary.apparent_bytes = in.apparent_bytes();
  summary.entries = in.entries();
  summary.dropped_xattr_count = in.dropped_xattr_count();
  summary.dropped_xattrs.assign(in.dropped_xattrs().begin(), in.dropped_xattrs().end());
  summary.compressed_bytes = in.compressed_bytes();
  summary.uncompressed_bytes = in.uncompressed_bytes();
  summary.reread_layers = in.reread_layers();
  for (const pb::Stage& stage : in.stages()) {
    summary.stages.push_back(BakeStage{stage.name(), stage.cpu_seconds()});
  }
  summary.wall_seconds = in.wall_seconds();
  summary.cpu_seconds = in.cpu_seconds();
  summary.peak_rss_bytes = in.peak_rss_bytes();
  return summary;
}

absl::Status FromProto(const pb::Failure& failure) {
  constexpr std::array<std::string_view, 7> kKnown = {
      "LAYER_UNSUPPORTED", "LAYER_CORRUPT", "DIGEST_MISMATCH",    "SIZE_CAP_EXCEEDED",
      "DISK_FULL",         "OUT_OF_MEMORY", "SOURCE_NOT_READABLE"};
  const bool known = std::find(kKnown.begin(), kKnown.end(), failure.reason()) != kKnown.end();
  const bool error = failure.code() > 0 && failure.code() <= 16;
  return ReasonError(
      error ? static_cast<absl::StatusCode>(failure.code()) : absl::StatusCode::kInternal,
      known ? failure.reason() : "INTERNAL", failure.message());
}

absl::Status TooSlow() {
  return ReasonError(absl::StatusCode::kDeadlineExceeded, "REGISTRY_UNREACHABLE",
                     "the registry sends the layers too slowly for as long as they are; try again "
                     "when it is less busy, or configure a mirror");
}

// How a child that said nothing ended.
absl::Status Explain(const ChildEnd& end, const BakeOptions& options) {
  if (end.timed_out) {
    return LayerRefused(
        absl::StrCat("the bake took longer than ", absl::FormatDuration(options.limits.wall_time)));
  }
  if (end.signal == SIGXCPU) {
    return LayerRefused(
        absl::StrCat("the bake took more than ", options.limits.cpu_seconds, " CPU seconds"));
  }
  if (end.broke_framing) return BakeInternal("the bake's process sent what is no answer");
  if (end.exit_code == kExitOutOfMemory || end.signal == SIGKILL) {
    return OutOfMemory();
  }
  return BakeInternal(absl::StrCat("the bake's process failed (exit ", end.exit_code, ", signal ",
                                   end.signal, "): ", Printable(end.stderr_text)));
}

// The child's claims against what was asked and what is there.
absl::Status CheckSummary(const BakeOptions& options, int out_fd, BakeSummary* summary) {
  if (summary->diff_ids.size() != options.layers.size()) {
    return BakeInternal("the bake reports another number of layers");
  }
  for (size_t i = 0; i < options.layers.size(); ++i) {
    const std::string& wanted = options.layers[i].diff_id;
    if (!IsDigest(summary->diff_ids[i]) || (!wanted.empty() && wanted != summary->diff_ids[i])) {
      return BakeInternal("the bake reports another diff id");
    }
  }
  struct stat status {};
  if (fstat(out_fd, &status) != 0) return ErrnoError(errno, "fstat of the image");
  summary->allocated_bytes = static_cast<uint64_t>(status.st_blocks) * 512;
  if (!IsDigest(summary->rootfs_digest, "fsverity-sha256:") ||
      summary->recipe_digest != RecipeDigest(summary->diff_ids) ||
      summary->apparent_bytes != static_cast<uint64_t>(status.st_size) ||
      summary->apparent_bytes > uint64_t{options.size_mib} << 20) {
    return BakeInternal("the bake's report does not fit its file");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BakeSummary> Bake(const BakeOptions& options, CancelToken& cancel,
                                 const std::function<void(const BakeProgress&)>& progress) {
  RETURN_IF_ERROR(Check(options));
  RETURN_IF_ERROR(cancel.Check());
  std::vector<UniqueFd> layers;
  BakeProgress last;
  RETURN_IF_ERROR(OpenLayers(options, &layers, &last.bytes_total));
  OutputFile image, tree;
  RETURN_IF_ERROR(image.Create(options.out_path));
  if (!options.tree_path.empty()) RETURN_IF_ERROR(tree.Create(options.tree_path));
  ASSIGN_OR_RETURN(const UniqueFd request, RequestFile(options));

  ChildProcess child;
  std::vector<int> fds = {request.get(), ChildProcess::kEventPipe, image.fd(),
                          tree.fd() >= 0 ? tree.fd() : image.fd(),
                          options.feed != nullptr ? options.feed->fd() : request.get()};
  for (const UniqueFd& layer : layers) fds.push_back(layer.get());
  RETURN_IF_ERROR(child.Start("bunker-bake", kBakeChildArgument, fds));
  cancel.SetCallback([&child] { child.Kill(); });

  absl::StatusOr<BakeSummary> result = absl::UnknownError("no answer");
  bool answered = false;
  absl::Duration next_progress;
  const auto on_frame = [&](const std::string& payload) {
    pb::BakeEvent event;
    if (answered || !event.ParseFromString(payload)) return;
    if (event.has_progress()) {
      // The child's pace is not to be relied upon.
      if (!progress || MonotonicTime() < next_progress) return;
      next_progress = MonotonicTime() + kProgressEvery;
      last.bytes_done = std::min(event.progress().bytes_done(), last.bytes_total);
      progress(last);
    } else if (event.has_summary()) {
      answered = true;
      result = FromProto(event.summary());
    } else if (event.has_failure()) {
      answered = true;
      result = FromProto(event.failure());
    }
  };
  // The time for which it waits for a registry is not the bake's, as long as that keeps a pace.
  const Deadline pulled(options.limits.wall_time + PullTime(last.bytes_total));
  std::optional<Deadline> deadline;
  const auto waits = [&] { return options.feed != nullptr && !options.feed->complete(); };
  const auto remaining = [&] {
    if (waits()) return pulled.Remaining();
    if (!deadline) deadline.emplace(options.limits.wall_time);
    return deadline->Remaining();
  };
  const ChildEnd end = child.Wait(remaining, on_frame);
  cancel.ClearCallback();
  RETURN_IF_ERROR(cancel.Check());
  if (!answered && end.timed_out && waits()) return TooSlow();
  if (!answered) return Explain(end, options);
  RETURN_IF_ERROR(result.status());
  if (end.exit_code != 0) return Explain(end, options);
  RETURN_IF_ERROR(CheckSummary(options, image.fd(), &*result));
  RETURN_IF_ERROR(image.Finish());
  RETURN_IF_ERROR(tree.Finish());
  image.Keep();
  tree.Keep();
  return result;
}

}  // namespace bunker::agent
