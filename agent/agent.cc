#include "agent/agent.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "agent/bake_limits.h"
#include "agent/cache/blob_store.h"
#include "agent/cache/image_store.h"
#include "agent/controller_logins.h"
#include "agent/host_facts.h"
#include "agent/journal/journal.h"
#include "agent/link/join.h"
#include "agent/link/link_client.h"
#include "agent/net/bunker_network.h"
#include "agent/pull/backoff.h"
#include "agent/pull_config.h"
#include "agent/reconcile/bunker_runner.h"
#include "agent/reconcile/bunker_table.h"
#include "agent/reconcile/cache_keeper.h"
#include "agent/reconcile/clone_pool.h"
#include "agent/reconcile/image_runner.h"
#include "agent/reconcile/image_table.h"
#include "agent/reconcile/network_keeper.h"
#include "agent/reconcile/network_request.h"
#include "agent/reconcile/scan_runner.h"
#include "agent/reconcile/scan_table.h"
#include "agent/reconcile/snapshot_job.h"
#include "agent/reconcile/snapshot_runner.h"
#include "agent/reconcile/snapshot_table.h"
#include "agent/reconcile/template_keeper.h"
#include "agent/reconcile/tunnels.h"
#include "agent/reconcile/uid_pool.h"
#include "agent/scan/scanner.h"
#include "agent/version.h"
#include "agent/vm/qemu_microvm.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/loop/event_loop.h"
#include "common/loop/worker_pool.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxQueuedImageJobs = 1024;
constexpr size_t kMaxQueuedVmJobs = 4096;
constexpr size_t kMaxQueuedScans = 1024;
constexpr size_t kMaxQueuedNetJobs = 16;
constexpr size_t kMaxQueuedCopies = 1024;
constexpr absl::Duration kActivityPeriod = absl::Seconds(5);
constexpr absl::Duration kJoinRetryPause = absl::Seconds(2);

QemuOptions QemuOptionsOf(const AgentConfig& config) {
  QemuOptions options;
  options.binary = config.qemu;
  options.accelerator = config.accelerator;
  options.kernel = config.kernel;
  options.initrd = config.initrd;
  options.scratch_dir = config.state_dir;
  options.probe_uid = config.uid_base + config.uid_count;  // the next after the VMs' own
  return options;
}

// Before the loop runs, a signal to end waits blocked.
bool SignalIsPending() {
  sigset_t pending;
  return ::sigpending(&pending) == 0 &&
         (::sigismember(&pending, SIGTERM) == 1 || ::sigismember(&pending, SIGINT) == 1);
}

VersionMap VersionsOf(const std::vector<link::v1::Assignment>& rows) {
  VersionMap versions;
  for (const link::v1::Assignment& row : rows) versions[row.name()] = row.version();
  return versions;
}

uint32_t StartsAtOnce(const AgentConfig& config) {
  if (config.concurrent_starts != 0) return config.concurrent_starts;
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

LinkEndpoint EndpointOf(const AgentConfig& config) {
  return {config.controller_address, config.controller_tls, config.controller_ca_file};
}

absl::StatusOr<std::string> ProbeHost(const AgentConfig& config) {
  RETURN_IF_ERROR(MakeFolders(config.state_dir, 0711));
  QemuMicrovm vmm(QemuOptionsOf(config));
  CancelToken cancel;
  ASSIGN_OR_RETURN(const AcceleratorVerdict verdict, vmm.Probe(cancel));
  std::string text = AcceleratorName(verdict.accelerator);
  if (!verdict.reason.empty()) text += ": " + verdict.reason;
  return text + " (probed in " + absl::FormatDuration(verdict.took) + ")";
}

namespace {

// The daemon. Members are in the order of construction; the link goes first at the end, so that
// nothing arrives any more while the rest winds down.
class Agent final : public LinkHandler, public ObservationSink {
 public:
  explicit Agent(const AgentConfig& config) : config_(config) {}

  absl::Status Run() {
    RETURN_IF_ERROR(Open());
    RETURN_IF_ERROR(JoinController());
    RETURN_IF_ERROR(BuildReconciler());
    RETURN_IF_ERROR(Restore());
    RETURN_IF_ERROR(WatchSignals());
    BeatForActivity();
    BeatForUsage();
    BeatForWatchdog();
    keeper_->Start();
    network_keeper_->Start();
    link_->Start();
    ::sd_notify(0, "READY=1");
    Log(Severity::kInfo, "agent.started",
        {{"worker", identity_.name},
         {"worker_id", identity_.worker_id},
         {"isolation", AcceleratorName(verdict_.accelerator)},
         {"why_not_kvm", verdict_.reason}});
    loop_->Run();
    ::sd_notify(0, "STOPPING=1");
    WindDown();
    return absl::OkStatus();
  }

  // ---- LinkHandler ----------------------------------------------------------------------------
  absl::Status AdmitAssignment(const link::v1::Assignment& row) override {
    if (!row.has_bunker()) return absl::OkStatus();
    const std::string& profile = row.bunker().network_profile();
    const auto& known = abilities_.profiles;
    if (std::find(known.begin(), known.end(), profile) != known.end()) return absl::OkStatus();
    return ReasonError(absl::StatusCode::kFailedPrecondition, "NETWORK_PROFILE_DENIED",
                       "this worker can't enforce the network profile " + profile +
                           (abilities_.reason.empty() ? "" : ": " + abilities_.reason));
  }

  void OnAssignments(AssignmentChanges changes, std::function<void()> durable) override {
    const absl::Status written = journal_->ApplyAssignments(changes.rows, changes.removed);
    if (!written.ok()) {
      // Acting on them would forget them in a crash: have the controller send them again.
      Log(Severity::kError, "journal.assignments_not_written",
          {{"error", std::string(written.message())}});
      const auto held = journal_->Assignments();
      BUNKER_CHECK(held.ok());  // a journal that can't even be read is a lost journal
      link_->ResetHeld(VersionsOf(*held));
      return;
    }
    durable();
    for (const link::v1::Assignment& row : changes.rows) Apply(row);
    for (const std::string& name : changes.removed) Drop(name);
  }

  void OnTunnel(const link::v1::OpenTunnel& request, std::shared_ptr<Tunnel> tunnel) override {
    tunnels_->Serve(request, std::move(tunnel));
  }

  void OnRevoked(const std::string& reason) override {
    // VMs are not the link's business: the operator decides what becomes of them.
    Log(Severity::kError, "agent.revoked", {{"reason", reason}});
    revoked_ = reason;
    loop_->Stop();
  }

  // ---- ObservationSink ------------------------------------------------------------------------
  void Upsert(const link::v1::Observation& row) override { link_->UpsertObservation(row); }
  void Remove(const std::string& name) override { link_->RemoveObservation(name); }

  const std::string& revoked() const { return revoked_; }

 private:
  absl::Status Open() {
    const std::string& dir = config_.state_dir;
    RETURN_IF_ERROR(MakeFolders(dir, 0711));
    RETURN_IF_ERROR(MakeFolders(VmDir(), 0711));
    RETURN_IF_ERROR(MakeFolders(DiskDir(), 0711));
    RETURN_IF_ERROR(MakeFolders(SnapshotDir(), 0700));
    ASSIGN_OR_RETURN(journal_, Journal::Open(dir + "/journal.db"));
    ASSIGN_OR_RETURN(blobs_, BlobStore::Open(dir + "/blobs"));
    ASSIGN_OR_RETURN(images_, ImageStore::Open(dir + "/images"));
    ASSIGN_OR_RETURN(PullConfig pull, PullConfigOf(config_));
    ASSIGN_OR_RETURN(puller_, ImagePuller::Create(std::move(pull)));
    vmm_ = std::make_unique<QemuMicrovm>(QemuOptionsOf(config_));
    CancelToken cancel;
    ASSIGN_OR_RETURN(verdict_, vmm_->Probe(cancel));
    if (verdict_.accelerator == Accelerator::kSoftware)
      Log(Severity::kWarning, "agent.no_kvm",
          {{"consequence", "guests run under software emulation, several times slower"},
           {"why", verdict_.reason}});
    ASSIGN_OR_RETURN(loop_, EventLoop::Create());
    ASSIGN_OR_RETURN(cgroups_, OpenCgroups(config_.cgroups));
    return absl::OkStatus();
  }

  std::string VmDir() const { return config_.state_dir + "/vm"; }
  std::string DiskDir() const { return config_.state_dir + "/disks"; }
  std::string SnapshotDir() const { return config_.state_dir + "/snapshots"; }

  // A controller that is not up yet is waited for; a token that is no good is an error at once.
  absl::Status JoinController() {
    for (;;) {
      auto identity = LoadOrJoin(EndpointOf(config_), config_.worker_name, config_.state_dir,
                                 config_.join_token_file);
      if (identity.ok()) {
        identity_ = *std::move(identity);
        return absl::OkStatus();
      }
      if (identity.status().code() != absl::StatusCode::kUnavailable) return identity.status();
      Log(Severity::kWarning, "agent.join_waits",
          {{"why", std::string(identity.status().message())}});
      RETURN_IF_ERROR(WaitUnlessStopped(kJoinRetryPause, SignalIsPending));
    }
  }

  absl::Status BuildReconciler() {
    image_pool_ =
        std::make_unique<WorkerPool>("image", config_.concurrent_image_jobs, kMaxQueuedImageJobs);
    collect_pool_ = std::make_unique<WorkerPool>("collect", 1, kMaxQueuedImageJobs);
    vm_pool_ = std::make_unique<WorkerPool>("vm", StartsAtOnce(config_), kMaxQueuedVmJobs);
    logins_ = std::make_unique<ControllerLogins>(EndpointOf(config_), identity_);
    image_runner_ =
        std::make_unique<ImageRunner>(*loop_, *image_pool_, *collect_pool_, *journal_,
                                      ImageJobParts{*puller_, *blobs_, *images_, config_.bake_uid,
                                                    LimitsOf(config_), logins_.get()});
    image_table_ =
        std::make_unique<ImageTable>(*image_runner_, *this, [this](const std::string& image_id) {
          bunker_table_->OnImageChange(image_id);
          scan_table_->OnImageChange(image_id);
          if (const auto* image = image_table_->Wanted(image_id)) PrepareTemplates(*image);
        });
    RETURN_IF_ERROR(BuildScanner());
    BunkerRunner::Options options;
    options.job.vm_dir = VmDir();
    options.job.disk_dir = DiskDir();
    options.job.snapshot_dir = SnapshotDir();
    options.job.kernel = config_.kernel;
    options.job.initrd = config_.initrd;
    ASSIGN_OR_RETURN(options.job.kernel_digest, FileSha256(config_.kernel));
    ASSIGN_OR_RETURN(options.job.initrd_digest, FileSha256(config_.initrd));
    options.job.accelerator = verdict_.accelerator;
    options.job.boot_deadline = absl::Seconds(config_.boot_deadline_s);
    options.start_burst = absl::Milliseconds(config_.start_burst_ms);
    uids_ = std::make_unique<UidPool>(config_.uid_base, config_.uid_count);
    RETURN_IF_ERROR(BuildNetworks());
    BuildTemplates(options.job);
    copy_pool_ = std::make_unique<WorkerPool>("copy", 1, kMaxQueuedCopies);
    bunker_runner_ = std::make_unique<BunkerRunner>(
        *loop_, BunkerRunner::Pools{*vm_pool_, *copy_pool_},
        BunkerJobParts{*vmm_, *images_, *journal_, *uids_, *templates_, *clones_, networks_.get(),
                       cgroups_.get()},
        options, Listeners());
    job_options_ = options.job;
    tunnels_ = std::make_unique<Tunnels>(*loop_, *bunker_runner_);
    bunker_table_ = std::make_unique<BunkerTable>(*bunker_runner_, *image_table_, *this);
    snapshot_runner_ =
        std::make_unique<SnapshotRunner>(*loop_, *collect_pool_, *bunker_table_, SnapshotDir());
    snapshot_table_ = std::make_unique<SnapshotTable>(*snapshot_runner_, *this);
    network_keeper_ = std::make_unique<NetworkKeeper>(
        *loop_, *net_pool_, *networks_,
        [this](const std::string& id, uint32_t incarnation,
               const std::vector<link::v1::NetworkEvent>& events) {
          bunker_table_->OnNetwork(id, incarnation, events);
        });
    CacheKeeper::Options keeping;
    keeping.state_dir = config_.state_dir;
    keeping.cap_bytes = config_.disk_mb << 20;
    keeping.high_percent = config_.cache_high_percent;
    keeping.low_percent = config_.cache_low_percent;
    keeping.period = absl::Seconds(config_.disk_check_s);
    keeper_ = std::make_unique<CacheKeeper>(
        *loop_, *collect_pool_, *blobs_, *images_, *image_table_, *this,
        [this](const std::string& recipe) { return bunker_table_->Uses(recipe); },
        std::move(keeping));
    return BuildLink();
  }

  // A host without what the rules need still runs bunkers that have no network card.
  absl::Status BuildNetworks() {
    net_pool_ = std::make_unique<WorkerPool>("net", 1, kMaxQueuedNetJobs);
    ASSIGN_OR_RETURN(networks_, BunkerNetworks::Create(NetworkOptionsOf(config_)));
    // Asked for before the first bunker needs it.
    auto look = [this](CancelToken&) { networks_->RegistryNames(); };
    RETURN_IF_ERROR(net_pool_->Submit(std::move(look)).status());
    abilities_ = networks_->Probe();
    if (!abilities_.reason.empty())
      Log(Severity::kWarning, "agent.no_networks", {{"why", abilities_.reason}});
    return absl::OkStatus();
  }

  absl::Status BuildScanner() {
    ScanOptions options = config_.scan;
    options.work_dir = config_.state_dir + "/scan";
    ASSIGN_OR_RETURN(scanner_, MakeScanner(options));
    scan_pool_ = std::make_unique<WorkerPool>("scan", 1, kMaxQueuedScans);
    scan_runner_ = std::make_unique<ScanRunner>(*loop_, *scan_pool_, *images_, *scanner_);
    scan_table_ = std::make_unique<ScanTable>(
        *scan_runner_, *this,
        ScanTable::Images{
            [this](const std::string& image_id) { return image_table_->ReadyRecipe(image_id); },
            [this](const std::string& recipe) { image_table_->EvictIfUnwanted(recipe); }});
    return absl::OkStatus();
  }

  void BuildTemplates(const BunkerJobOptions& job) {
    TemplateKeeper::Options options;
    // Where KVM works, a boot is as quick as all this, and nobody has seen a restored guest run.
    options.enabled = job.accelerator == Accelerator::kSoftware && vmm_->Capabilities().snapshots;
    options.max_count = config_.template_max;
    options.max_bytes = uint64_t{config_.template_memory_mb} << 20;
    options.vm_dir = job.vm_dir;
    options.kernel_digest = job.kernel_digest;
    options.initrd_digest = job.initrd_digest;
    templates_ =
        std::make_unique<TemplateKeeper>(*vmm_, *images_, *journal_, *uids_, std::move(options));
    ClonePool::Options pool;
    pool.max_count = templates_->enabled() ? config_.pool_max : 0;
    pool.memory_mb = config_.pool_memory_mb;
    pool.vm_dir = job.vm_dir;
    clones_ = std::make_unique<ClonePool>(*vmm_, *journal_, *uids_, cgroups_.get(),
                                          std::move(pool));
    image_runner_->OnEvicted([this](const std::string& recipe) {
      templates_->DropImage(recipe);
      clones_->DropImage(recipe);
    });
  }

  // What ran before a restart of the agent will be wanted again.
  void PrepareTemplate(const BunkerRunner::Recovered& bunker) {
    if (bunker.observed.status() != link::v1::BunkerObservation::RUNNING) return;
    const VmSpec form = FormOf(job_options_, *images_, bunker.recipe_digest,
                               {bunker.wanted.cpu_millicores(), bunker.wanted.memory_mb(),
                                HasNetworkCard(bunker.wanted)});
    templates_->Prepare(form, bunker.recipe_digest, bunker.wanted.disk_mb());
  }

  // An image that is ready gets what most of its first bunkers will ask for.
  void PrepareTemplates(const link::v1::ImageAssignment& image) {
    const std::string recipe = image_table_->ReadyRecipe(image.image_id());
    // What no group wants is here to be looked at, and goes again.
    if (recipe.empty() || image.expendable() || image.default_memory_mb() == 0) return;
    for (const bool network_card : {false, true}) {
      if (network_card && abilities_.profiles.size() < 2) return;
      const VmSpec form =
          FormOf(job_options_, *images_, recipe,
                 {image.default_cpu_millicores(), image.default_memory_mb(), network_card});
      templates_->PrepareAhead(form, recipe, image.default_disk_mb());
    }
  }

  BunkerRunner::Listeners Listeners() {
    return {
        [this](const std::string& id, uint32_t incarnation, bool clean, const std::string& reason) {
          bunker_table_->OnExit(id, incarnation, clean, reason);
        },
        [this](const std::string& id, uint32_t incarnation, uint32_t active_execs) {
          bunker_table_->OnActivity(id, incarnation, active_execs,
                                    absl::ToUnixMillis(loop_->Now()));
        },
        [this](const std::string& id, uint32_t incarnation, absl::Duration took) {
          bunker_table_->OnFirstExec(id, incarnation, absl::ToDoubleMilliseconds(took));
        },
        [this](const std::string& id, uint32_t incarnation, const link::v1::Usage& usage) {
          bunker_table_->OnUsage(id, incarnation, usage);
        },
        [this](const std::string& id, uint32_t incarnation, const link::v1::MainState& state) {
          bunker_table_->OnMain(id, incarnation, state);
        }};
  }

  absl::Status BuildLink() {
    LinkClient::Options options;
    options.endpoint = EndpointOf(config_);
    options.identity = identity_;
    options.boot_id = HostBootId();
    options.agent_version = kAgentVersion;
    ASSIGN_OR_RETURN(options.facts, ReadHostFacts(config_, verdict_));
    for (const std::string& profile : abilities_.profiles)
      options.facts.add_network_profiles(profile);
    options.facts.set_network_reason(abilities_.reason);
    for (const std::string& bridge : abilities_.bridges) options.facts.add_bridges(bridge);
    options.boot_counter = journal_->boot_counter();
    ASSIGN_OR_RETURN(held_, journal_->Assignments());
    options.held = VersionsOf(held_);
    link_ = std::make_unique<LinkClient>(*loop_, std::move(options), *this);
    return absl::OkStatus();
  }

  // What earlier lives left: first the facts, then the wishes that were journalled with them.
  absl::Status Restore() {
    ASSIGN_OR_RETURN(const auto ready, journal_->Images());
    for (const link::v1::ImageObservation& image : ready) {
      if (images_->Find(image.recipe_digest()) && IsHeld("images/" + image.image_id()))
        image_table_->Restore(image);
      else
        RETURN_IF_ERROR(journal_->RemoveImage(image.image_id()));
    }
    std::set<std::string> keepers, snapshots;
    for (const link::v1::Assignment& row : held_) {
      if (row.bunker().keep_disk()) keepers.insert(row.bunker().bunker_id());
      if (row.has_snapshot()) snapshots.insert(row.snapshot().snapshot_id());
    }
    for (const auto& [id, bytes] : RecoverSnapshots(SnapshotDir(), snapshots))
      snapshot_table_->Restore(id, bytes);
    ASSIGN_OR_RETURN(auto recovered, bunker_runner_->Recover(keepers));
    // A template serves all disks that are no smaller than its own.
    std::sort(recovered.begin(), recovered.end(), [](const auto& a, const auto& b) {
      return a.wanted.disk_mb() < b.wanted.disk_mb();
    });
    for (const BunkerRunner::Recovered& bunker : recovered)
      bunker_table_->Restore(bunker.wanted, bunker.observed, bunker.recipe_digest);
    for (const BunkerRunner::Recovered& bunker : recovered) PrepareTemplate(bunker);
    for (const link::v1::Assignment& row : held_) Apply(row);
    for (const BunkerRunner::Recovered& bunker : recovered) {
      // Its row went while the agent was away: nobody wants it any more.
      if (!IsHeld("bunkers/" + bunker.wanted.bunker_id()))
        bunker_table_->Remove(bunker.wanted.bunker_id());
    }
    EvictStrangers(ready);
    image_runner_->CollectBlobs();
    return absl::OkStatus();
  }

  bool IsHeld(const std::string& name) const {
    return std::any_of(held_.begin(), held_.end(),
                       [&](const link::v1::Assignment& row) { return row.name() == name; });
  }

  // Baked files that no row names: a row was dropped in the moment before a crash.
  void EvictStrangers(const std::vector<link::v1::ImageObservation>& ready) {
    for (const BakedImage& image : images_->List()) {
      const bool named = std::any_of(ready.begin(), ready.end(), [&](const auto& row) {
        return row.recipe_digest() == image.recipe_digest && IsHeld("images/" + row.image_id());
      });
      // A held row without a READY observation may be about to find this very file.
      const bool awaited = std::any_of(held_.begin(), held_.end(), [&](const auto& row) {
        return row.has_image() && std::none_of(ready.begin(), ready.end(), [&](const auto& r) {
                 return r.image_id() == row.image().image_id();
               });
      });
      if (!named && !awaited) image_runner_->Evict(image.recipe_digest);
    }
  }

  void Apply(const link::v1::Assignment& row) {
    if (row.has_image()) {
      image_table_->Upsert(row.image());
      PrepareTemplates(row.image());
    }
    if (row.has_bunker()) bunker_table_->Upsert(row.bunker());
    if (row.has_scan()) scan_table_->Upsert(row.scan());
    if (row.has_snapshot()) snapshot_table_->Upsert(row.snapshot());
  }

  void Drop(const std::string& name) {
    const size_t slash = name.find('/');
    if (slash == std::string::npos) return;
    const std::string kind = name.substr(0, slash);
    if (kind == "images") image_table_->Remove(name.substr(slash + 1));
    if (kind == "bunkers") bunker_table_->Remove(name.substr(slash + 1));
    if (kind == "scans") scan_table_->Remove(name.substr(slash + 1));
    if (kind == "snapshots") snapshot_table_->Remove(name.substr(slash + 1));
  }

  absl::Status WatchSignals() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::sigaddset(&set, SIGINT);
    signals_.reset(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!signals_) return ErrnoError(errno, "signalfd");
    return loop_->WatchFd(signals_.get(), EventLoop::kReadable, [this](uint32_t) {
      Log(Severity::kInfo, "agent.stopping");
      loop_->Stop();
    });
  }

  // A command that runs for long keeps its bunker from being idle.
  void BeatForActivity() {
    bunker_runner_->ReportActivity();
    clones_->Tend();
    loop_->AddTimer(kActivityPeriod, [this] { BeatForActivity(); });
  }

  void BeatForUsage() {
    bunker_runner_->MeasureAll();
    loop_->AddTimer(absl::Seconds(config_.usage_period_s), [this] { BeatForUsage(); });
  }

  // From the loop itself, so that a loop that hangs is seen by systemd.
  void BeatForWatchdog() {
    uint64_t period_us = 0;
    if (::sd_watchdog_enabled(0, &period_us) <= 0) return;
    ::sd_notify(0, "WATCHDOG=1");
    loop_->AddTimer(absl::Microseconds(static_cast<int64_t>(period_us / 3)),
                    [this] { BeatForWatchdog(); });
  }

  void WindDown() {
    link_.reset();
    // The link tells them no more: end the commands, and with them their hold on the channels.
    if (tunnels_) tunnels_->CloseAll();
    keeper_.reset();
    templates_->Shutdown();
    clones_->Shutdown();
    image_pool_->Shutdown();
    collect_pool_->Shutdown();
    copy_pool_->Shutdown();
    vm_pool_->Shutdown();
    net_pool_->Shutdown();
    scan_pool_->Shutdown();
  }

  const AgentConfig& config_;
  std::string revoked_;
  Identity identity_;
  AcceleratorVerdict verdict_;
  std::vector<link::v1::Assignment> held_;

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<ImageStore> images_;
  std::unique_ptr<ImagePuller> puller_;
  std::unique_ptr<ControllerLogins> logins_;
  std::unique_ptr<Vmm> vmm_;
  std::unique_ptr<CgroupRoot> cgroups_;  // null: the VMs have none of their own
  std::unique_ptr<Scanner> scanner_;
  std::unique_ptr<WorkerPool> image_pool_;
  std::unique_ptr<WorkerPool> collect_pool_;
  std::unique_ptr<WorkerPool> vm_pool_;
  std::unique_ptr<WorkerPool> copy_pool_;
  std::unique_ptr<WorkerPool> scan_pool_;
  std::unique_ptr<WorkerPool> net_pool_;
  std::unique_ptr<BunkerNetworks> networks_;
  NetworkAbilities abilities_;
  std::unique_ptr<ImageRunner> image_runner_;
  BunkerJobOptions job_options_;
  std::unique_ptr<UidPool> uids_;
  std::unique_ptr<TemplateKeeper> templates_;
  std::unique_ptr<ClonePool> clones_;
  std::unique_ptr<BunkerRunner> bunker_runner_;
  std::unique_ptr<ImageTable> image_table_;
  std::unique_ptr<BunkerTable> bunker_table_;
  std::unique_ptr<SnapshotRunner> snapshot_runner_;
  std::unique_ptr<SnapshotTable> snapshot_table_;
  std::unique_ptr<NetworkKeeper> network_keeper_;
  std::unique_ptr<CacheKeeper> keeper_;
  std::unique_ptr<ScanRunner> scan_runner_;
  std::unique_ptr<ScanTable> scan_table_;
  std::unique_ptr<LinkClient> link_;
  std::unique_ptr<Tunnels> tunnels_;
  UniqueFd signals_;
};

// Every thread inherits the mask: signals are the loop's to read.
void BlockSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  BUNKER_CHECK(::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  BUNKER_CHECK(::signal(SIGPIPE, SIG_IGN) != SIG_ERR);
}

}  // namespace

absl::Status RunAgent(const AgentConfig& config) {
  BlockSignals();
  Agent agent(config);
  RETURN_IF_ERROR(agent.Run());
  if (!agent.revoked().empty())
    return absl::PermissionDeniedError("the controller threw this worker out: " + agent.revoked());
  return absl::OkStatus();
}

}  // namespace bunker::agent
