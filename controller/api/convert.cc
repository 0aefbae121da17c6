#include "controller/api/convert.h"

#include "common/base/id.h"

namespace bunker::controller {
namespace {

using google::protobuf::EnumDescriptor;

std::string Upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  return upper;
}

size_t PrefixSize(const EnumDescriptor* descriptor) {
  return descriptor->value(0)->name().size() - std::string_view("UNSPECIFIED").size();
}

void ToMessage(const Resources& resources, v1::Resources* out) {
  out->set_cpu_millicores(static_cast<uint32_t>(resources.cpu_millicores));
  out->set_memory_mb(resources.memory_mb);
  out->set_disk_mb(resources.disk_mb);
}

}  // namespace

void SetTime(absl::Time time, google::protobuf::Timestamp* timestamp) {
  const int64_t nanos = absl::ToUnixNanos(time);
  const int64_t seconds = absl::ToUnixSeconds(time);
  timestamp->set_seconds(seconds);
  timestamp->set_nanos(static_cast<int32_t>(nanos - seconds * 1'000'000'000));
}

int ProtoEnumNumber(const EnumDescriptor* descriptor, std::string_view name) {
  const std::string wanted = descriptor->value(0)->name().substr(0, PrefixSize(descriptor)) +
                             Upper(name);
  const auto* value = descriptor->FindValueByName(wanted);
  return value == nullptr ? 0 : value->number();
}

std::string ModelEnumName(const EnumDescriptor* descriptor, int number) {
  const auto* value = descriptor->FindValueByNumber(number);
  if (value == nullptr || number == 0) return "";
  std::string name = value->name().substr(PrefixSize(descriptor));
  // The model spells names as the contract does: the architecture alone in upper case.
  if (descriptor->name() == "Arch") return name;
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return name;
}

void ToMessage(const Image& image, const CacheSummary& cache, v1::Image* out) {
  out->set_id(image.id);
  out->set_uuid(UuidOf(image.id));
  out->set_name(image.name);
  out->set_display_name(image.display_name);
  out->set_description(image.description);
  auto* source = out->mutable_build_source();
  source->set_kind(ToProto<v1::BuildSource::Kind>(image.build_source.kind));
  if (!image.build_source.ref.empty()) source->set_ref(image.build_source.ref);
  if (!image.build_source.path.empty()) source->set_path(image.build_source.path);
  if (const std::string url = image.url(); !url.empty()) out->set_url(url);
  if (!image.rootfs_digest.empty()) out->set_rootfs_digest(image.rootfs_digest);
  out->set_size_mib(image.size_mib);
  if (image.size_in_bytes() > 0) out->set_size_in_bytes(image.size_in_bytes());
  out->set_default_cpu_millicores(image.default_cpu_millicores);
  out->set_default_memory_mb(image.default_memory_mb);
  out->set_default_disk_mb(image.default_disk_mb);
  out->set_scope(ToProto<v1::Scope>(image.ownership.scope));
  if (!image.ownership.tenant_id.empty()) out->set_tenant_id(image.ownership.tenant_id);
  if (!image.owner.empty()) out->set_owner(image.owner);
  out->set_lazy_pull(image.lazy_pull);
  for (const std::string& item : image.preinstalled) out->add_preinstalled(item);
  out->set_arch(ToProto<v1::Arch>(image.arch));
  for (const std::string& item : image.resource_category)
    out->add_resource_category(ToProtoByName<v1::ResourceCategory>(item));
  out->set_origin(ToProto<v1::Origin>(image.origin));
  for (const std::string& item : image.args()) out->add_args(item);
  for (const std::string& item : image.tags) out->add_tags(item);
  if (image.resolved) {
    const ImageConfig& config = image.resolved->config;
    out->set_resolved_digest(image.resolved->manifest_digest);
    for (const std::string& item : config.env) {
      const size_t equals = item.find('=');
      if (equals != std::string::npos)
        (*out->mutable_env())[item.substr(0, equals)] = item.substr(equals + 1);
    }
    out->set_working_dir(config.working_dir);
    out->set_user(config.user);
    for (const std::string& item : config.exposed_ports) out->add_exposed_ports(item);
  }
  if (!image.pull_secret.empty()) out->set_pull_secret(image.pull_secret);
  if (image.tag_moved) {
    out->mutable_tag_moved()->set_digest(image.tag_moved->digest);
    SetTime(image.tag_moved->seen_at, out->mutable_tag_moved()->mutable_seen_at());
  }
  out->set_active(image.active);
  out->set_scan_status(ToProto<v1::ScanStatus>(image.scan_status));
  if (!image.scan_summary.empty()) out->set_scan_summary(image.scan_summary);
  if (image.scanned_at) SetTime(*image.scanned_at, out->mutable_scanned_at());
  auto* summary = out->mutable_cache_summary();
  summary->set_pending(cache.pending);
  summary->set_building(cache.building);
  summary->set_ready(cache.ready);
  summary->set_failed(cache.failed);
  summary->set_evicted(cache.evicted);
  SetTime(image.created_at, out->mutable_created_at());
  SetTime(image.updated_at, out->mutable_updated_at());
}

void ToMessage(const WarmSummary& warm, v1::WarmSummary* out) {
  out->set_queued(warm.queued);
  out->set_ready(warm.ready);
  out->set_failed(warm.failed);
  out->set_skipped(warm.skipped);
}

void ToMessage(const CacheView& view, v1::CacheRow* out) {
  const CacheEntry& entry = *view.entry;
  out->set_worker_id(entry.worker_id);
  out->set_worker_name(view.worker_name);
  out->set_status(ToProto<v1::CacheStatus>(entry.status));
  if (!entry.stage.empty()) out->set_stage(entry.stage);
  out->set_bytes_done(entry.bytes_done);
  if (entry.bytes_total > 0) out->set_bytes_total(entry.bytes_total);
  if (entry.rate_bytes_per_s > 0) out->set_rate_bytes_per_s(entry.rate_bytes_per_s);
  if (const auto eta_s = entry.eta_s()) out->set_eta_s(*eta_s);
  if (!entry.source.empty()) out->set_source(entry.source);
  if (!entry.rootfs_digest.empty()) out->set_rootfs_digest(entry.rootfs_digest);
  out->set_attempt(entry.attempt);
  if (!entry.error_code.empty()) {
    out->mutable_error()->set_code(entry.error_code);
    out->mutable_error()->set_message(entry.error_message);
  }
  SetTime(entry.updated_at, out->mutable_updated_at());
}

void ToMessage(const Group& group, v1::AvailabilityGroup* out) {
  out->set_id(group.id);
  out->set_name(group.name);
  out->set_description(group.description);
  out->set_scope(ToProto<v1::Scope>(group.ownership.scope));
  if (!group.ownership.tenant_id.empty()) out->set_tenant_id(group.ownership.tenant_id);
  out->set_auto_images(group.auto_images);
  for (const std::string& id : group.image_ids) out->add_image_ids(id);
  for (const std::string& id : group.worker_ids) out->add_worker_ids(id);
  SetTime(group.created_at, out->mutable_created_at());
  SetTime(group.updated_at, out->mutable_updated_at());
}

void ToMessage(const WorkerView& view, v1::Worker* out) {
  const Worker& worker = *view.worker;
  out->set_id(worker.id);
  out->set_name(worker.name);
  out->set_status(ToProto<v1::WorkerStatus>(worker.status));
  out->set_scope(ToProto<v1::Scope>(worker.ownership.scope));
  out->set_shared(worker.shared);
  out->set_arch(ToProto<v1::Arch>(worker.facts.arch));
  out->set_isolation(ToProtoByName<v1::Isolation>(worker.facts.isolation));
  for (const auto& [key, value] : worker.labels()) (*out->mutable_labels())[key] = value;
  if (!view.amounts_visible) return;
  for (const std::string& id : view.cached_image_ids) out->add_cached_images(id);
  if (!worker.ownership.tenant_id.empty()) out->set_tenant_id(worker.ownership.tenant_id);
  if (!worker.ownership.partner_id.empty()) out->set_partner_id(worker.ownership.partner_id);
  if (worker.draining) {
    auto* drain = out->mutable_drain();
    drain->set_then(ToProto<v1::DrainThen>(worker.drain_then));
    if (worker.drain_deadline) SetTime(*worker.drain_deadline, drain->mutable_deadline());
  }
  out->set_version(worker.agent_version);
  if (view.last_heartbeat > absl::UnixEpoch())
    SetTime(view.last_heartbeat, out->mutable_last_heartbeat());
  ToMessage(worker.facts.capacity, out->mutable_capacity());
  ToMessage(view.allocated, out->mutable_allocated());
  SetTime(worker.created_at, out->mutable_created_at());
}

v1::Bunker BunkerRow(const Engine& engine, const Bunker& bunker) {
  // The operator's view, since the bunker was made from it with the right to.
  const absl::StatusOr<RowPtr<Image>> image =
      engine.FindImage(OperatorCaller(), bunker.image_id);
  v1::Bunker row;
  ToMessage(bunker, image.ok() ? image->get() : nullptr, &row);
  return row;
}

static void FillMain(const Bunker& bunker, v1::Bunker* out) {
  if (!bunker.main) return;
  v1::MainSpec& main = *out->mutable_main();
  for (const std::string& word : bunker.main->args) main.add_args(word);
  for (const auto& [key, value] : bunker.main->env) (*main.mutable_env())[key] = value;
  main.set_restart(ToProto<v1::MainSpec::Restart>(bunker.main->restart));
  if (!bunker.main_status) return;
  const MainStatus& from = *bunker.main_status;
  v1::MainStatus& status = *out->mutable_main_status();
  status.set_state(ToProto<v1::MainState>(from.state));
  if (from.ended && from.signal.empty()) status.set_exit_code(from.exit_code);
  if (from.ended && !from.signal.empty()) status.set_signal(from.signal);
  status.set_restarts(from.restarts);
  if (!from.message.empty()) status.set_message(from.message);
}

static void PutNetwork(const Bunker& bunker, v1::Bunker* out) {
  out->set_network_profile(ToProto<v1::NetworkProfile>(bunker.network_profile));
  for (const std::string& name : bunker.network_allowlist) out->add_network_allowlist(name);
  for (const BunkerInterface& interface : bunker.interfaces) {
    v1::Interface* row = out->add_interfaces();
    row->set_if_name(interface.if_name);
    row->set_bridge_name(interface.bridge_name);
    row->set_spoof_guard(interface.spoof_guard);
    row->set_mac(interface.mac);
    if (!interface.ipv4.empty()) row->set_ipv4(interface.ipv4);
    if (!interface.gateway.empty()) row->set_gateway(interface.gateway);
  }
  if (bunker.bandwidth_mbit > 0) out->set_bandwidth_mbit(bunker.bandwidth_mbit);
  if (!bunker.private_ip.empty()) out->set_private_ip(bunker.private_ip);
}

void ToMessage(const Bunker& bunker, const Image* image, v1::Bunker* out) {
  out->set_id(bunker.id);
  out->set_uuid(UuidOf(bunker.id));
  out->set_name(bunker.name);
  out->set_tenant_id(bunker.tenant_id);
  if (!bunker.owner.empty()) out->set_owner(bunker.owner);
  out->set_image(bunker.image_name);
  out->set_image_id(bunker.image_id);
  if (!bunker.image_digest.empty()) out->set_image_digest(bunker.image_digest);
  if (image != nullptr) {
    if (const std::string url = image->url(); !url.empty()) out->set_url(url);
    const std::vector<std::string> args =
        image->args(bunker.main ? bunker.main->args : std::vector<std::string>());
    for (const std::string& item : args) out->add_args(item);
  }
  out->set_lifecycle_mode(ToProto<v1::LifecycleMode>(bunker.lifecycle_mode));
  PutNetwork(bunker, out);
  if (bunker.disk_bytes_per_s > 0) out->set_disk_bytes_per_s(bunker.disk_bytes_per_s);
  if (bunker.disk_iops > 0) out->set_disk_iops(bunker.disk_iops);
  out->set_status(ToProto<v1::BunkerStatus>(bunker.status));
  if (!bunker.status_reason.empty()) out->set_status_reason(bunker.status_reason);
  if (!bunker.status_message.empty()) out->set_status_message(bunker.status_message);
  if (!bunker.snapshot_id.empty()) out->set_snapshot_id(bunker.snapshot_id);
  if (!bunker.final_snapshot_id.empty()) out->set_final_snapshot_id(bunker.final_snapshot_id);
  out->set_incarnation(bunker.incarnation);
  if (!bunker.worker_id.empty()) out->set_worker_id(bunker.worker_id);
  out->set_cpu_millicores(bunker.cpu_millicores);
  out->set_memory_mb(bunker.memory_mb);
  out->set_disk_mb(bunker.disk_mb);
  if (bunker.max_lifetime_s > 0) out->set_max_lifetime_s(bunker.max_lifetime_s);
  if (bunker.idle_timeout_s > 0) out->set_idle_timeout_s(bunker.idle_timeout_s);
  out->set_on_idle(ToProto<v1::OnIdle>(bunker.on_idle));
  out->set_session_type(ToProtoByName<v1::SessionType>(bunker.session_type));
  if (!bunker.session_ref.empty()) out->set_session_ref(bunker.session_ref);
  for (const auto& [key, value] : bunker.label_set) (*out->mutable_label_set())[key] = value;
  for (const auto& [key, value] : bunker.worker_labels)
    (*out->mutable_worker_labels())[key] = value;
  for (const auto& [key, value] : bunker.env_vars) (*out->mutable_env_vars())[key] = value;
  FillMain(bunker, out);
  out->set_start_kind(ToProtoByName<v1::StartKind>(bunker.start_kind));
  if (!bunker.fallback_reason.empty()) out->set_fallback_reason(bunker.fallback_reason);
  auto* timings = out->mutable_timings();
  const auto set = [timings](double ms, void (v1::BunkerTimings::*setter)(double)) {
    if (ms > 0) (timings->*setter)(ms);
  };
  set(bunker.timings.queue_ms, &v1::BunkerTimings::set_queue_ms);
  // Known since there is a worker, though a bunker is placed in the turn that accepts it.
  if (!bunker.worker_id.empty()) timings->set_place_ms(bunker.timings.place_ms);
  if (bunker.started_at) timings->set_fetch_ms(bunker.timings.fetch_ms);
  set(bunker.timings.boot_ms, &v1::BunkerTimings::set_boot_ms);
  set(bunker.timings.agent_ms, &v1::BunkerTimings::set_agent_ms);
  set(bunker.timings.first_exec_ms, &v1::BunkerTimings::set_first_exec_ms);
  out->set_isolation(ToProtoByName<v1::Isolation>(bunker.isolation));
  SetTime(bunker.created_at, out->mutable_created_at());
  if (bunker.usage) {
    v1::BunkerUsage* usage = out->mutable_usage();
    usage->set_cpu_s(bunker.usage->cpu_s);
    usage->set_rss_bytes(bunker.usage->rss_bytes);
    usage->set_disk_bytes(bunker.usage->disk_bytes);
    usage->set_net_rx_bytes(bunker.usage->net_rx_bytes);
    usage->set_net_tx_bytes(bunker.usage->net_tx_bytes);
    SetTime(bunker.usage->at, usage->mutable_at());
  }
  if (bunker.started_at) SetTime(*bunker.started_at, out->mutable_started_at());
  if (bunker.expires_at) SetTime(*bunker.expires_at, out->mutable_expires_at());
  if (bunker.terminated_at) SetTime(*bunker.terminated_at, out->mutable_terminated_at());
}

v1::PlacementFailure ToMessage(const PlacementExplanation& why) {
  v1::PlacementFailure failure;
  for (const PlacementRow& row : why.rows) {
    if (row.eligible) continue;
    auto* detail = failure.add_details();
    detail->set_worker_id(row.worker_id);
    detail->set_worker_name(row.worker_name);
    if (row.predicate) detail->set_predicate(std::string(NameOf(*row.predicate)));
    if (!row.shortfall.empty()) detail->set_shortfall(row.shortfall);
    detail->set_remedy(row.remedy);
    if (row.eta_s) detail->set_eta_s(*row.eta_s);
  }
  for (const auto& [predicate, count] : why.counts) (*failure.mutable_counts())[predicate] = count;
  return failure;
}

}  // namespace bunker::controller
