#include "agent/commands/bake_command.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "agent/bake_limits.h"
#include "agent/cache/blob_store.h"
#include "agent/commands/bake_report.h"
#include "agent/commands/bake_source.h"
#include "agent/commands/exit_codes.h"
#include "agent/commands/interrupt.h"
#include "agent/commands/stage_bar.h"
#include "agent/config.h"
#include "agent/pull/image_source.h"
#include "agent/pull_config.h"
#include "agent/reconcile/pull_and_bake.h"
#include "common/base/cancel.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/oci/platform.h"

namespace bunker::agent {
namespace {

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// A private folder beside what is made in it; goes with all that is left there.
class ScratchFolder {
 public:
  static absl::StatusOr<std::unique_ptr<ScratchFolder>> Make(const std::string& parent) {
    std::string path = parent + "/.bunker-bake.XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return ErrnoError(errno, "making a folder in " + parent);
    return std::unique_ptr<ScratchFolder>(new ScratchFolder(std::move(path)));
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  explicit ScratchFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// A file under its final name, taken back unless it is kept.
class Published {
 public:
  static absl::StatusOr<Published> Link(const std::string& from, const std::string& to) {
    if (::link(from.c_str(), to.c_str()) != 0) return ErrnoError(errno, "naming it " + to);
    Published published(to);
    RETURN_IF_ERROR(SyncFolder(FolderOf(to)));
    return published;
  }
  Published(Published&& other) noexcept : path_(std::exchange(other.path_, std::string())) {}
  ~Published() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  void Keep() { path_.clear(); }

 private:
  explicit Published(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

double CpuSeconds(int who) {
  rusage usage{};
  if (::getrusage(who, &usage) != 0) return 0;
  return Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
}

// Measures one step from its construction to End().
class StepClock {
 public:
  explicit StepClock(std::string name)
      : name_(std::move(name)), began_(absl::Now()), cpu_(CpuSeconds(RUSAGE_SELF)) {}
  StepTime End() const {
    return {name_, absl::ToDoubleSeconds(absl::Now() - began_), CpuSeconds(RUSAGE_SELF) - cpu_};
  }

 private:
  std::string name_;
  absl::Time began_;
  double cpu_;
};

absl::StatusOr<std::string> ArchOf(const std::string& wanted) {
  if (wanted.empty()) {
    utsname host{};
    if (::uname(&host) == 0 && std::string(host.machine) == "aarch64") return "AARCH64";
    return "X86_64";
  }
  const std::string from_go = oci::ArchOfGoArchitecture(wanted);
  const std::string arch = from_go.empty() ? wanted : from_go;
  RETURN_IF_ERROR(oci::GoArchitecture(arch).status());
  return arch;
}

absl::Status CheckAbsent(const std::string& path) {
  struct stat info;
  if (path.empty() || ::lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  return absl::InvalidArgumentError(path + " is there already: remove it, or name another file");
}

// A store removes what does not belong into it: it must not be let loose on anything else.
absl::Status CheckIsBlobStore(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error) || std::filesystem::is_empty(folder, error) ||
      std::filesystem::exists(folder + "/lock", error)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(folder +
                                    " holds something else than pulled layers: name a folder that "
                                    "is empty, new, or was made by this command");
}

class BakeRun {
 public:
  BakeRun(const BakeCommandOptions& options, CancelToken& cancel)
      : options_(options),
        cancel_(cancel),
        bar_(::isatty(STDERR_FILENO) == 1, options.quiet),
        began_(absl::Now()) {}

  absl::StatusOr<BakeReport> Run() {
    RETURN_IF_ERROR(Prepare());
    RETURN_IF_ERROR(Resolve());
    RETURN_IF_ERROR(PullAndBakeNow());
    RETURN_IF_ERROR(Publish());
    bar_.Clear();
    report_.wall_seconds = absl::ToDoubleSeconds(absl::Now() - began_);
    report_.cpu_seconds = CpuSeconds(RUSAGE_SELF) + CpuSeconds(RUSAGE_CHILDREN);
    rusage usage{};
    if (::getrusage(RUSAGE_SELF, &usage) == 0)
      report_.peak_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
    return std::move(report_);
  }

 private:
  absl::Status Prepare() {
    if (::geteuid() != 0) {
      return absl::FailedPreconditionError(
          "baking needs root, for its confined child changes to a user of its own: use sudo");
    }
    if (!options_.config_path.empty()) {
      ASSIGN_OR_RETURN(config_, LoadAgentConfig(options_.config_path));
    }
    RETURN_IF_ERROR(CheckAbsent(options_.out));
    RETURN_IF_ERROR(CheckAbsent(options_.tree));
    ASSIGN_OR_RETURN(from_, ParseBakeSource(options_.source));
    ASSIGN_OR_RETURN(report_.arch, ArchOf(options_.arch));
    ASSIGN_OR_RETURN(scratch_, ScratchFolder::Make(FolderOf(options_.out)));
    if (!options_.tree.empty()) {
      ASSIGN_OR_RETURN(tree_scratch_, ScratchFolder::Make(FolderOf(options_.tree)));
    }
    const std::string blobs = options_.blobs.empty() ? scratch_->File("blobs") : options_.blobs;
    RETURN_IF_ERROR(CheckIsBlobStore(blobs));
    ASSIGN_OR_RETURN(blobs_, BlobStore::Open(blobs));
    report_.source = options_.source;
    report_.file = options_.out;
    report_.tree_file = options_.tree;
    return absl::OkStatus();
  }

  absl::Status Resolve() {
    const StepClock clock("resolve");
    bar_.Enter("resolving");
    ASSIGN_OR_RETURN(PullConfig pull, PullConfigOf(config_));
    pull.tar_root = from_.tar_root;
    pull.scratch_dir = scratch_->File(".");
    ASSIGN_OR_RETURN(puller_, ImagePuller::Create(std::move(pull)));
    ASSIGN_OR_RETURN(source_, puller_->OpenSource(from_.spec, /*pinned=*/"", report_.arch));
    ASSIGN_OR_RETURN(report_.image, source_->Resolve(cancel_));
    report_.steps.push_back(clock.End());
    return absl::OkStatus();
  }

  absl::Status PullAndBakeNow() {
    BakeOptions bake;
    bake.size_mib = options_.size_mib;
    bake.out_path = scratch_->File("rootfs.ext4");
    if (tree_scratch_) bake.tree_path = tree_scratch_->File("tree");
    bake.limits = LimitsOf(config_);
    bake.child_uid = config_.bake_uid;
    bake.child_gid = config_.bake_uid;
    bar_.Enter("pulling");
    StepClock clock("pull");
    // From the last byte on; until then the bake goes on behind the pull.
    const auto pull_ended = [&] {
      report_.steps.push_back(clock.End());
      clock = StepClock("bake");
      bar_.Enter("baking");
    };
    const auto bytes = [this](uint64_t done, uint64_t total) { bar_.Bytes(done, total); };
    ASSIGN_OR_RETURN(report_.summary,
                     PullAndBake(*source_, report_.image, *blobs_, std::move(bake), cancel_,
                                 {.pulled = bytes, .pull_ended = pull_ended, .baked = bytes}));
    report_.steps.push_back(clock.End());
    return absl::OkStatus();
  }

  // Never over a file that has come to be there meanwhile.
  absl::Status Publish() {
    const StepClock clock("publish");
    RETURN_IF_ERROR(cancel_.Check());
    std::vector<Published> published;
    if (tree_scratch_) {
      ASSIGN_OR_RETURN(Published tree, Published::Link(tree_scratch_->File("tree"), options_.tree));
      published.push_back(std::move(tree));
    }
    ASSIGN_OR_RETURN(Published image, Published::Link(scratch_->File("rootfs.ext4"), options_.out));
    published.push_back(std::move(image));
    for (Published& file : published) file.Keep();
    report_.steps.push_back(clock.End());
    return absl::OkStatus();
  }

  const BakeCommandOptions& options_;
  CancelToken& cancel_;
  StageBar bar_;
  const absl::Time began_;
  AgentConfig config_;
  BakeSource from_;
  // In the order of construction: what was pulled is let go of before its folder goes.
  std::unique_ptr<ScratchFolder> scratch_;
  std::unique_ptr<ScratchFolder> tree_scratch_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<ImagePuller> puller_;
  std::unique_ptr<ImageSource> source_;
  BakeReport report_;
};

}  // namespace

int RunBakeCommand(const BakeCommandOptions& options) {
  SetLogThreshold(Severity::kWarning);
  ::umask(077);
  CancelToken cancel;
  const Interrupt interrupt(&cancel);
  absl::StatusOr<BakeReport> report = BakeRun(options, cancel).Run();
  // Whatever the interrupted step called its failure.
  if (!report.ok() && interrupt.Arrived()) {
    cancel.Cancel();
    report = cancel.Check();
  }
  if (!report.ok()) {
    std::fprintf(stderr, "bunker-agent: %s\n", ErrorText(report.status()).c_str());
    if (options.json) std::fputs(ErrorJson(report.status()).c_str(), stdout);
    return ExitCodeOf(report.status());
  }
  std::fputs((options.json ? ReportJson(*report) : ReportText(*report)).c_str(), stdout);
  return std::fflush(stdout) == 0 ? kExitDone : kExitFailed;
}

}  // namespace bunker::agent
