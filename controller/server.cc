#include "controller/server.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/loop/event_loop.h"
#include "common/metrics/metrics.h"
#include "common/sqlite/sync_count.h"
#include "controller/api/dispatcher.h"
#include "controller/api/grpc_surface.h"
#include "controller/api/services.h"
#include "controller/engine/audit_reader.h"
#include "controller/engine/audit_retention.h"
#include "controller/engine/core.h"
#include "controller/engine/engine.h"
#include "controller/exec_adapter.h"
#include "controller/talk_adapter.h"
#include "controller/init.h"
#include "controller/link/admin_server.h"
#include "controller/link/link_server.h"
#include "controller/link/server_parts.h"
#include "controller/listener_watchdog.h"
#include "controller/metrics/metrics_server.h"
#include "controller/metrics/state_metrics.h"
#include "controller/rest/gateway.h"
#include "controller/rest/http_server.h"
#include "controller/scan/scan_work.h"
#include "controller/seal_keys.h"
#include "controller/store/sqlite_store.h"
#include "controller/version.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"

namespace bunker::controller {
namespace {

constexpr auto kHttpGrace = absl::Seconds(5);
constexpr auto kGrpcGrace = std::chrono::seconds(3);
constexpr size_t kCursorSecretBytes = 32;

EngineOptions EngineOptionsOf(const ControllerConfig& config) {
  EngineOptions options;
  options.placement.cpu_overcommit = config.cpu_overcommit;
  options.placement.memory_reserve_mb = config.memory_reserve_mb;
  options.placement.disk_reserve_mb = config.disk_reserve_mb;
  options.placement.strategy = *ParseEnum<PlacementStrategy>(config.placement_strategy);
  options.offline_after = absl::Seconds(config.offline_after_s);
  options.lost_after = absl::Seconds(config.lost_after_s);
  options.sweep_period = absl::Seconds(config.sweep_interval_s);
  options.max_key_rate_per_s = static_cast<uint32_t>(std::max(1.0, config.requests_per_s));
  options.tag_check_period = absl::Seconds(config.tag_check_interval_s);
  options.work_limits = {config.builds_per_registry, config.builds_per_worker,
                         config.registry_builds};
  options.retry_base = absl::Seconds(config.retry_base_s);
  options.retry_max = absl::Seconds(config.retry_max_s);
  options.pending_deadline = absl::Seconds(config.pending_deadline_s);
  options.stall_deadline = absl::Seconds(config.stall_deadline_s);
  options.cache_keep = absl::Seconds(config.keep_unused_s);
  options.max_snapshots_per_tenant = config.snapshots_per_tenant;
  options.max_snapshot_bytes_per_tenant = config.snapshot_mib_per_tenant << 20;
  options.snapshot_deadline = absl::Seconds(config.snapshot_deadline_s);
  options.scan.period = absl::Seconds(config.scan_interval_s);
  options.scan.max_age = absl::Seconds(config.scan_max_age_s);
  options.scan.deadline = absl::Seconds(config.scan_deadline_s);
  options.scan.unknown_fails = config.scan_unknown_fails;
  options.scan.gate = config.scan_gate == "failed"      ? ScanGate::kFailed
                      : config.scan_gate == "unscanned" ? ScanGate::kUnscanned
                                                        : ScanGate::kOff;
  return options;
}

HttpServerOptions HttpOptionsOf(const ControllerConfig& config) {
  HttpServerOptions options;
  options.host = config.rest.host;
  options.port = config.rest.port;
  options.tls_certificate = config.rest_tls_certificate;
  options.tls_key = config.rest_tls_key;
  options.limits.max_connections = config.rest_max_connections;
  options.limits.max_connections_per_ip = config.rest_max_connections_per_ip;
  return options;
}

// What cursors are signed with; made at the first start, so that they survive a restart.
absl::StatusOr<std::string> LoadCursorSecret(const std::string& path) {
  auto secret = ReadFile(path, 1024);
  if (secret.ok() && secret->size() == kCursorSecretBytes) return secret;
  if (!secret.ok() && !absl::IsNotFound(secret.status())) return secret.status();
  SystemRng rng;
  const std::string fresh = rng.Bytes(kCursorSecretBytes);
  RETURN_IF_ERROR(WriteFileDurably(path, fresh, 0600));
  return fresh;
}

}  // namespace

struct Server::Impl {
  explicit Impl(ControllerConfig c) : config(std::move(c)) {}

  absl::Status Open();
  absl::Status Listen();
  absl::Status ListenGrpc();
  absl::Status ListenMetrics();
  void NameMetrics();
  absl::Status WatchSignals();
  void StartWatchdogs();
  void PingSystemd(absl::Duration period);
  void Stop();

  const ControllerConfig config;
  SystemRng rng;
  // In the order of construction; destroyed in the reverse order.
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<SqliteStore> store;
  std::unique_ptr<KeyRing> keys;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Core> core;
  std::unique_ptr<LinkServer> link;
  std::unique_ptr<AuditReader> audit_reader;
  std::unique_ptr<ExecAdapter> exec;
  std::unique_ptr<TalkAdapter> talks;
  ShellTickets tickets;
  std::unique_ptr<ScanWork> scans;
  std::unique_ptr<Cursors> cursors;
  std::unique_ptr<AuditRetention> retention;
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<Gateway> gateway;
  std::unique_ptr<GrpcSurface> surface;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<StateMetrics> state_metrics;
  metrics::Registry registry;
  std::unique_ptr<MetricsServer> metrics_server;  // null: its default port is taken
  std::unique_ptr<grpc::Server> grpc_server;
  int grpc_port = 0;
  std::unique_ptr<AdminServer> admin;
  std::unique_ptr<ListenerWatchdog> watchdog;
  UniqueFd signals;
  std::thread stopping;
  std::atomic<int> exit_code{0};
};

absl::Status Server::Impl::Open() {
  ASSIGN_OR_RETURN(loop, EventLoop::Create());
  SqliteStore::Options options;
  options.must_exist = true;
  auto opened = SqliteStore::Open(config.state_file(), options);
  if (!opened.ok() && ::access(config.state_file().c_str(), F_OK) != 0) {
    return absl::FailedPreconditionError(fmt::format(
        "there is no store at {}; run `bunker-controller init --config FILE` once, as the same "
        "user", config.state_file()));
  }
  if (!opened.ok()) return Annotate(opened.status(), config.state_file());
  store = *std::move(opened);
  ASSIGN_OR_RETURN(const bool initialised, IsInitialised(*store));
  if (!initialised) {
    return absl::FailedPreconditionError(
        "the store has no tenant; run `bunker-controller init --config FILE` once");
  }
  ASSIGN_OR_RETURN(KeyRing ring, LoadSealKeys(config.state_dir));
  keys = std::make_unique<KeyRing>(std::move(ring));
  engine = std::make_unique<Engine>(EngineOptionsOf(config), rng);
  RETURN_IF_ERROR(engine->Load(*store, absl::Now()));
  core = std::make_unique<Core>(*loop, *store, *engine, Core::Options());
  LinkServer::Options link_options;
  link_options.keys = keys.get();
  core->Post([this](Engine& e, Turn& turn) { SealAnew(*keys, e, turn); });
  // Two of an agent's pings fit into the time after which it counts as offline.
  absl::Duration& ping_period = link_options.sessions.session.ping_period;
  ping_period = std::min(ping_period, engine->options().offline_after * 0.45);
  link = std::make_unique<LinkServer>(*core, link_options);
  exec = std::make_unique<ExecAdapter>(link->tunnels());
  talks = std::make_unique<TalkAdapter>(link->tunnels());
  ASSIGN_OR_RETURN(std::string secret, LoadCursorSecret(config.state_dir + "/cursor.key"));
  cursors = std::make_unique<Cursors>(std::move(secret));
  Dispatcher::Options limits;
  limits.rate_per_second = config.requests_per_s;
  limits.rate_burst = config.request_burst;
  audit_reader = std::make_unique<AuditReader>(*store);
  AuditRetention::Options retain;
  if (config.audit_retention_days > 0)
    retain.keep = absl::Hours(24) * config.audit_retention_days;
  retention = std::make_unique<AuditRetention>(*core, *audit_reader, retain);
  limits.request_hash_key = keys->Derive("idempotency");
  dispatcher = std::make_unique<Dispatcher>(*core, limits);
  ScanWork::Options scan_options;
  scan_options.advisories = config.scan_advisories;
  scan_options.period = absl::Seconds(config.scan_interval_s);
  scans = std::make_unique<ScanWork>(*core, *store, scan_options);
  RegisterAllServices({cursors.get(), exec.get(), kVersion, audit_reader.get(), keys.get(),
                       config.modelarts_size_mib, scans.get(), talks.get(), &tickets},
                      dispatcher.get());
  Gateway::Options rest;
  rest.version = kVersion;
  rest.tickets = &tickets;
  rest.allowed_origins = config.allowed_origins;
  ASSIGN_OR_RETURN(gateway, Gateway::Create(*core, *dispatcher, rest));
  surface = std::make_unique<GrpcSurface>(*core, *dispatcher, PublicServices());
  return absl::OkStatus();
}

absl::Status Server::Impl::ListenGrpc() {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!config.grpc_tls_certificate.empty()) {
    ASSIGN_OR_RETURN(credentials,
                     LoadServerCredentials(config.grpc_tls_certificate, config.grpc_tls_key));
  }
  grpc::EnableDefaultHealthCheckService(true);
  // Keeps its descriptor in the binary, for reflection.
  (void)grpc::health::v1::HealthCheckRequest::descriptor();
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  ApplyServerDefaults(builder);
  builder.AddListeningPort(config.grpc.ToString(), credentials, &grpc_port);
  link->Register(builder);
  surface->Register(builder);
  grpc_server = builder.BuildAndStart();
  if (grpc_server == nullptr || grpc_port == 0) {
    return absl::UnavailableError(fmt::format(
        "gRPC can't listen on {}; choose another grpc.address or end what uses it",
        config.grpc.ToString()));
  }
  return absl::OkStatus();
}

// Every series that /metrics has, with the names that the README lists.
void Server::Impl::NameMetrics() {
  const CoreStats& stats = core->stats();
  registry.Add("bunker_turns_total", "Rounds of the loop that owns the state.", &stats.turns);
  registry.Add("bunker_events_total", "Events that they handled.", &stats.events);
  registry.Add("bunker_commits_total", "Transactions made durable.", &stats.commits);
  registry.AddCounter("bunker_fsyncs_total", "Syncs that the store asked for.",
                      [] { return static_cast<double>(sqlite::SyncCount()); });
  registry.Add("bunker_rows_written_total", "Rows in them.", &stats.rows);
  registry.Add("bunker_batch_rows", "Rows in one transaction.", &stats.batch_rows);
  registry.Add("bunker_commit_duration_seconds", "From handing a batch over to its being durable.",
               &stats.commit_seconds);
  registry.Add("bunker_loop_lag_seconds", "From asking for a turn to its begin.",
               &stats.lag_seconds);
  registry.Add("bunker_store_errors_total", "Batches that found no room on the disk.",
               &stats.store_errors);
  state_metrics->Register(&registry);
  gateway->metrics().Register(&registry);
  const RefusalStats& refusals = dispatcher->refusals();
  registry.Add("bunker_api_errors_total", "Calls that failed, by code.", &refusals.errors);
  registry.Add("bunker_placement_refusals_total",
               "Workers turned down in refused placements, by predicate.", &refusals.placements);
  registry.Add("bunker_quota_refusals_total", "Calls refused by a quota.", &refusals.quota);
  registry.Add("bunker_rate_limited_total", "Calls beyond a key's rate.", &refusals.rate_limited);
  const LinkStats& sessions = link->sessions().stats();
  registry.AddGauge("bunker_link_sessions", "Agents that are connected.",
                    [this] { return static_cast<double>(link->sessions().connected()); });
  registry.Add("bunker_link_sessions_total", "Sessions begun.", &sessions.sessions);
  registry.Add("bunker_link_observations_total", "Rows taken from agents.", &sessions.observations);
  registry.Add("bunker_link_acks_total", "Frames of them acknowledged.", &sessions.acks);
  registry.Add("bunker_link_assignments_total", "Rows sent to agents.", &sessions.assignments);
  registry.AddProcess();
}

absl::Status Server::Impl::ListenMetrics() {
  auto started = MetricsServer::Start(config.metrics.host, config.metrics.port, *core, registry);
  if (started.ok()) {
    metrics_server = *std::move(started);
    return absl::OkStatus();
  }
  if (config.metrics_set) return Annotate(started.status(), "metrics.address");
  Log(Severity::kWarning, "metrics.not_served",
      {{"error", std::string(started.status().message())},
       {"remedy", "set metrics.address to a free port"}});
  return absl::OkStatus();
}

absl::Status Server::Impl::Listen() {
  state_metrics = std::make_unique<StateMetrics>(*engine);
  NameMetrics();
  core->Post([this](Engine&, Turn& turn) {
    turn.AfterCommit([this](const absl::Status&) {
      core->Watch([this](const ChangeSet& changes) { state_metrics->OnChanges(changes); });
    });
  });
  core->Start();
  RETURN_IF_ERROR(ListenMetrics());
  scans->Start();
  RETURN_IF_ERROR(ListenGrpc());
  ASSIGN_OR_RETURN(admin, AdminServer::Start(*core, config.admin_socket,
                                             [this](grpc::ServerBuilder& builder) {
                                               surface->Register(builder);
                                             }));
  ASSIGN_OR_RETURN(http, HttpServer::Start(HttpOptionsOf(config), gateway.get()));
  if (!config.rest.is_loopback() && config.rest_tls_certificate.empty()) {
    Log(Severity::kWarning, "rest.plain_text",
        {{"address", config.rest.ToString()},
         {"remedy", "set rest.tls_certificate and rest.tls_key, or put a TLS proxy before it"}});
  }
  return absl::OkStatus();
}

absl::Status Server::Impl::WatchSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  signals.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return ErrnoError(errno, "signalfd");
  return loop->WatchFd(signals.get(), EventLoop::kReadable, [this](uint32_t) {
    signalfd_siginfo info;
    if (::read(signals.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
    Log(Severity::kInfo, "controller.stopping", {{"signal", info.ssi_signo}});
    Stop();
  });
}

// On the loop. The waiting is another thread's: what is answered meanwhile needs the loop.
void Server::Impl::Stop() {
  if (stopping.joinable()) return;
  ::sd_notify(0, "STOPPING=1");
  link->CloseAll("the controller is stopping");
  stopping = std::thread([this] {
    watchdog.reset();
    if (metrics_server != nullptr) metrics_server->Stop();
    http->Stop(kHttpGrace);
    grpc_server->Shutdown(std::chrono::system_clock::now() + kGrpcGrace);
    admin.reset();
    loop->Stop();
  });
}

void Server::Impl::PingSystemd(absl::Duration period) {
  ::sd_notify(0, "WATCHDOG=1");
  loop->AddTimer(period, [this, period] { PingSystemd(period); });
}

void Server::Impl::StartWatchdogs() {
  uint64_t usec = 0;
  // From the loop's own timer: a loop that hangs is what systemd is to notice.
  if (::sd_watchdog_enabled(0, &usec) > 0 && usec > 0) PingSystemd(absl::Microseconds(usec) / 3);
  ListenerWatchdog::Options options;
  const bool any = config.grpc.host == "0.0.0.0" || config.grpc.host == "::";
  options.host = any ? (config.grpc.host == "::" ? "::1" : "127.0.0.1") : config.grpc.host;
  options.port = static_cast<uint16_t>(grpc_port);
  watchdog = std::make_unique<ListenerWatchdog>(options, [this] {
    Log(Severity::kError, "listener.dead",
        {{"remedy", "the controller ends, to be started again; raise LimitNOFILE if it recurs"}});
    exit_code = 1;
    loop->Post([this] { Stop(); });
  });
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ControllerConfig& config) {
  RaiseFileLimit();
  TuneGrpc();
  ::umask(0077);
  auto impl = std::make_unique<Impl>(config);
  RETURN_IF_ERROR(impl->Open());
  RETURN_IF_ERROR(impl->WatchSignals());
  RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::Run() {
  Log(Severity::kInfo, "controller.ready",
      {{"version", kVersion},
       {"rest", HostPort{impl_->config.rest.host, rest_port()}.ToString()},
       {"metrics_port", impl_->metrics_server == nullptr ? 0 : impl_->metrics_server->port()},
       {"grpc", HostPort{impl_->config.grpc.host, grpc_port()}.ToString()}});
  impl_->loop->Post([impl = impl_.get()] {
    impl->StartWatchdogs();
    impl->retention->Start();
    ::sd_notify(0, "READY=1");
  });
  impl_->loop->Run();
  if (impl_->stopping.joinable()) impl_->stopping.join();
  Log(Severity::kInfo, "controller.stopped");
  return impl_->exit_code;
}

uint16_t Server::rest_port() const { return impl_->http->port(); }
uint16_t Server::grpc_port() const { return static_cast<uint16_t>(impl_->grpc_port); }

void BlockSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

}  // namespace bunker::controller
