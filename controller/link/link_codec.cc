#include "controller/link/link_codec.h"

#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxScanErrorBytes = 1024;
constexpr int kMaxNetworkEvents = 64;
constexpr size_t kMaxEventWordBytes = 256;
constexpr size_t kMaxSnapshotErrorBytes = 2048;
constexpr size_t kMaxMainMessageBytes = 512;
constexpr size_t kMaxBridges = 256;
constexpr size_t kMaxBridgeName = 15;

std::string Bounded(const std::string& text) { return text.substr(0, kMaxEventWordBytes); }

void Fill(const ImageAssignment& from, link::v1::ImageAssignment& to) {
  to.set_image_id(from.image_id);
  if (from.source.kind == SourceKind::kOci) {
    to.mutable_source()->set_oci_ref(from.source.ref);
  } else {
    to.mutable_source()->set_tar_path(from.source.path);
  }
  to.set_tenant_id(from.tenant_id);
  to.set_scope(std::string(NameOf(from.scope)));
  to.set_manifest_digest(from.manifest_digest);
  to.set_size_mib(from.size_mib);
  to.set_arch(std::string(NameOf(from.arch)));
  to.set_attempt(from.attempt);
  to.set_default_cpu_millicores(from.default_cpu_millicores);
  to.set_default_memory_mb(from.default_memory_mb);
  to.set_default_disk_mb(from.default_disk_mb);
  to.set_credential_id(from.credential_id);
  to.set_tag_check(from.tag_check);
  to.set_expendable(from.expendable);
}

void Fill(const MainProgram& from, link::v1::MainProgram& to) {
  using Wire = link::v1::MainProgram;
  for (const std::string& word : from.args) to.add_argv(word);
  for (const auto& [name, value] : from.env) (*to.mutable_env())[name] = value;
  to.set_restart(from.restart == MainRestart::kAlways      ? Wire::ALWAYS
                 : from.restart == MainRestart::kOnFailure ? Wire::ON_FAILURE
                                                           : Wire::NEVER);
  to.set_allow_root(from.allow_root);
  to.set_default_to_1000(!from.allow_root);
}

void Fill(const BunkerAssignment& from, link::v1::BunkerAssignment& to) {
  to.set_bunker_id(from.bunker_id);
  to.set_incarnation(from.incarnation);
  to.set_image_id(from.image_id);
  to.set_tenant_id(from.tenant_id);
  to.set_cpu_millicores(from.cpu_millicores);
  to.set_memory_mb(from.memory_mb);
  to.set_disk_mb(from.disk_mb);
  to.set_hostname(from.hostname);
  for (const auto& [name, value] : from.env) (*to.mutable_env())[name] = value;
  to.set_working_dir(from.working_dir);
  to.set_user(from.user);
  to.set_network_profile(std::string(NameOf(from.network_profile)));
  to.set_desired(from.stopped  ? link::v1::BunkerAssignment::STOPPED
                 : from.paused ? link::v1::BunkerAssignment::PAUSED
                               : link::v1::BunkerAssignment::RUNNING);
  to.set_keep_disk(from.keep_disk);
  to.set_disk_expected(from.disk_expected);
  to.set_boot_deadline_ms(from.boot_deadline_ms);
  for (const std::string& name : from.network_allowlist) to.add_network_allowlist(name);
  for (const BunkerInterface& interface : from.interfaces) {
    link::v1::TransitInterface* out = to.add_interfaces();
    out->set_if_name(interface.if_name);
    out->set_bridge_name(interface.bridge_name);
    out->set_spoof_guard(interface.spoof_guard);
    out->set_mac(interface.mac);
    out->set_ipv4(interface.ipv4);
    out->set_gateway(interface.gateway);
  }
  to.set_bandwidth_mbit(from.bandwidth_mbit);
  to.set_disk_bytes_per_s(from.disk_bytes_per_s);
  to.set_disk_iops(from.disk_iops);
  to.set_snapshot_id(from.snapshot_id);
  to.set_snapshot_memory(from.snapshot_memory);
  if (from.main) Fill(*from.main, *to.mutable_main());
}

void Fill(const SnapshotAssignment& from, link::v1::SnapshotAssignment& to) {
  to.set_snapshot_id(from.snapshot_id);
  to.set_bunker_id(from.bunker_id);
  to.set_desired(from.gone ? link::v1::SnapshotAssignment::GONE
                           : link::v1::SnapshotAssignment::TAKEN);
  to.set_expected(from.expected);
  to.set_memory(from.memory);
}

absl::Status Invalid(const std::string& row, const char* what) {
  return ReasonError(absl::StatusCode::kInvalidArgument, "VALIDATION_ERROR",
                     "the observation " + row + " " + what +
                         "; the agent and the controller may be of different versions");
}

absl::StatusOr<CacheStatus> StatusOf(const link::v1::ImageObservation& from) {
  switch (from.status()) {
    case link::v1::ImageObservation::PENDING: return CacheStatus::kPending;
    case link::v1::ImageObservation::BUILDING: return CacheStatus::kBuilding;
    case link::v1::ImageObservation::READY: return CacheStatus::kReady;
    case link::v1::ImageObservation::FAILED: return CacheStatus::kFailed;
    case link::v1::ImageObservation::EVICTED:
      return CacheStatus::kEvicted;
    default: return Invalid(from.image_id(), "has an unknown status");
  }
}

absl::StatusOr<BunkerStatus> StatusOf(const link::v1::BunkerObservation& from) {
  switch (from.status()) {
    case link::v1::BunkerObservation::PROVISIONING: return BunkerStatus::kProvisioning;
    case link::v1::BunkerObservation::RUNNING: return BunkerStatus::kRunning;
    case link::v1::BunkerObservation::PAUSED: return BunkerStatus::kPaused;
    case link::v1::BunkerObservation::STOPPING: return BunkerStatus::kStopping;
    case link::v1::BunkerObservation::STOPPED: return BunkerStatus::kStopped;
    case link::v1::BunkerObservation::FAILED: return BunkerStatus::kFailed;
    default: return Invalid(from.bunker_id(), "has an unknown status");
  }
}

ResolvedImage FromProto(const link::v1::Resolved& from) {
  ResolvedImage to;
  to.repository = from.repository();
  to.manifest_digest = from.manifest_digest();
  to.index_digest = from.index_digest();
  to.layers_bytes = from.layers_bytes();
  to.diff_ids.assign(from.diff_ids().begin(), from.diff_ids().end());
  const link::v1::ImageConfig& config = from.config();
  to.config.entrypoint.assign(config.entrypoint().begin(), config.entrypoint().end());
  to.config.cmd.assign(config.cmd().begin(), config.cmd().end());
  to.config.env.assign(config.env().begin(), config.env().end());
  to.config.working_dir = config.working_dir();
  to.config.user = config.user();
  to.config.exposed_ports.assign(config.exposed_ports().begin(), config.exposed_ports().end());
  return to;
}

absl::StatusOr<ImageObservation> FromProto(const link::v1::ImageObservation& from) {
  ImageObservation to;
  to.image_id = from.image_id();
  to.attempt = from.attempt();
  ASSIGN_OR_RETURN(to.status, StatusOf(from));
  to.stage = from.stage();
  to.source = from.source();
  to.bytes_done = from.bytes_done();
  to.bytes_total = from.bytes_total();
  to.rate_bytes_per_s = from.rate_bytes_per_s();
  if (from.has_resolved()) {
    to.resolved = FromProto(from.resolved());
    to.resolved_arch =
        ParseEnum<Arch>(from.resolved().config().arch()).value_or(Arch::kUnspecified);
  }
  to.recipe_digest = from.recipe_digest();
  to.rootfs_digest = from.rootfs_digest();
  to.allocated_bytes = from.allocated_bytes();
  to.error_code = from.error_code();
  to.error_message = from.error_message();
  to.retryable = from.retryable();
  for (const link::v1::StageTime& stage : from.stages())
    to.stages.push_back({stage.name(), stage.ms()});
  to.tag_check = from.tag_check().serial();
  to.tag_digest = from.tag_check().digest();
  if (from.last_used_unix_ms() > 0)
    to.last_used_at = absl::FromUnixMillis(from.last_used_unix_ms());
  return to;
}

absl::StatusOr<MainStatus> FromProto(const link::v1::MainState& from) {
  using Wire = link::v1::MainState;
  MainStatus to;
  switch (from.state()) {
    case Wire::STARTING: to.state = MainState::kStarting; break;
    case Wire::RUNNING: to.state = MainState::kRunning; break;
    case Wire::WAITING: to.state = MainState::kWaiting; break;
    case Wire::EXITED: to.state = MainState::kExited; break;
    case Wire::FAILED: to.state = MainState::kFailed; break;
    default: return Invalid("of a bunker", "tells of its main program in an unknown state");
  }
  to.ended = from.ended();
  to.exit_code = from.exit_code();
  to.signal = Bounded(from.signal());
  to.restarts = from.restarts();
  to.message = from.message().substr(0, kMaxMainMessageBytes);
  return to;
}

absl::StatusOr<BunkerObservation> FromProto(const link::v1::BunkerObservation& from) {
  BunkerObservation to;
  to.bunker_id = from.bunker_id();
  to.incarnation = from.incarnation();
  ASSIGN_OR_RETURN(to.status, StatusOf(from));
  to.status_reason = from.status_reason();
  to.status_message = from.status_message();
  to.isolation = from.isolation();
  to.start_kind = from.start_kind();
  to.fallback_reason = from.fallback_reason();
  to.timings.queue_ms = from.timings().queue_ms();
  to.timings.fetch_ms = from.timings().fetch_ms();
  to.timings.boot_ms = from.timings().boot_ms();
  to.timings.agent_ms = from.timings().agent_ms();
  to.timings.first_exec_ms = from.timings().first_exec_ms();
  if (from.last_activity_unix_ms() > 0)
    to.last_activity_at = absl::FromUnixMillis(from.last_activity_unix_ms());
  to.active_execs = from.active_execs();
  to.private_ip = from.private_ip();
  if (from.network_events_size() > kMaxNetworkEvents)
    return Invalid(from.bunker_id(), "tells more than 64 network events");
  for (const link::v1::NetworkEvent& event : from.network_events()) {
    to.network_events.push_back({absl::FromUnixMillis(event.at_unix_ms()), event.allowed(),
                                 Bounded(event.rule()), Bounded(event.proto()),
                                 Bounded(event.dst()), event.port(), Bounded(event.name()),
                                 event.count()});
  }
  to.disk_kept = from.disk_kept();
  if (from.has_usage()) {
    to.usage = BunkerUsage{from.usage().cpu_s(), from.usage().rss_bytes(),
                           from.usage().disk_bytes(),
                           absl::FromUnixMillis(from.usage().at_unix_ms()),
                           from.usage().net_rx_bytes(), from.usage().net_tx_bytes()};
  }
  if (from.has_main()) {
    ASSIGN_OR_RETURN(to.main, FromProto(from.main()));
  }
  return to;
}

absl::StatusOr<SnapshotObservation> FromProto(const link::v1::SnapshotObservation& from) {
  using Wire = link::v1::SnapshotObservation;
  using Status = SnapshotObservation::Status;
  SnapshotObservation to;
  switch (from.status()) {
    case Wire::READY: to.status = Status::kReady; break;
    case Wire::FAILED: to.status = Status::kFailed; break;
    case Wire::GONE: to.status = Status::kGone; break;
    default: return Invalid(from.snapshot_id(), "has an unknown status");
  }
  to.snapshot_id = from.snapshot_id();
  to.size_bytes = from.size_bytes();
  to.error_code = Bounded(from.error_code());
  to.error_message = from.error_message().substr(0, kMaxSnapshotErrorBytes);
  return to;
}

}  // namespace

link::v1::Assignment ToProto(const DesiredRow& row) {
  link::v1::Assignment out;
  out.set_name(row.name);
  out.set_version(row.version);
  if (const auto* image = std::get_if<ImageAssignment>(&row.row)) {
    Fill(*image, *out.mutable_image());
  } else if (const auto* bunker = std::get_if<BunkerAssignment>(&row.row)) {
    Fill(*bunker, *out.mutable_bunker());
  } else if (const auto* snapshot = std::get_if<SnapshotAssignment>(&row.row)) {
    Fill(*snapshot, *out.mutable_snapshot());
  } else {
    const auto& scan = std::get<ScanAssignment>(row.row);
    out.mutable_scan()->set_image_id(scan.image_id);
    out.mutable_scan()->set_generation(scan.generation);
  }
  return out;
}

absl::StatusOr<ObservedRow> FromProto(const link::v1::Observation& row) {
  ObservedRow out{row.name(), row.version(), {}};
  std::string name;
  if (row.has_image()) {
    ASSIGN_OR_RETURN(out.row, FromProto(row.image()));
    name = ImageRowName(row.image().image_id());
  } else if (row.has_bunker()) {
    ASSIGN_OR_RETURN(out.row, FromProto(row.bunker()));
    name = BunkerRowName(row.bunker().bunker_id());
  } else if (row.has_disk()) {
    const link::v1::DiskObservation& disk = row.disk();
    out.row = DiskObservation{disk.capacity_bytes(), disk.used_bytes(), disk.cache_bytes(),
                              disk.high_bytes(), disk.low_bytes()};
    name = kDiskRowName;
  } else if (row.has_scan()) {
    const link::v1::ScanObservation& scan = row.scan();
    out.row = ScanObservation{scan.image_id(), scan.generation(), scan.output_zstd(),
                              scan.error_message().substr(0, kMaxScanErrorBytes)};
    name = ScanRowName(scan.image_id());
  } else if (row.has_snapshot()) {
    ASSIGN_OR_RETURN(out.row, FromProto(row.snapshot()));
    name = SnapshotRowName(row.snapshot().snapshot_id());
  } else {
    return Invalid(row.name(), "has no content that this controller knows");
  }
  if (name != row.name()) return Invalid(row.name(), "is named otherwise than its content");
  return out;
}

WorkerFacts FromProto(const link::v1::WorkerFacts& facts) {
  WorkerFacts out;
  out.capacity = {facts.cpu_millicores(), facts.memory_mb(), facts.disk_mb()};
  out.arch = ParseEnum<Arch>(facts.arch()).value_or(Arch::kUnspecified);
  out.isolation = facts.isolation();
  out.isolation_reason = facts.isolation_reason();
  out.labels.insert(facts.labels().begin(), facts.labels().end());
  out.network_profiles.insert(facts.network_profiles().begin(), facts.network_profiles().end());
  out.network_reason = facts.network_reason();
  for (const std::string& bridge : facts.bridges()) {
    if (out.bridges.size() < kMaxBridges && bridge.size() <= kMaxBridgeName)
      out.bridges.insert(bridge);
  }
  return out;
}

}  // namespace bunker::controller
