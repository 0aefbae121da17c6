#include "controller/store/row_codec.h"

#include <exception>
#include <optional>
#include <stdexcept>
#include <type_traits>

#include "common/base/hex.h"
#include "common/base/reason.h"
#include "controller/model/enum_names.h"
#include "nlohmann/json.hpp"

namespace bunker::controller {

template <typename E, typename = void>
struct HasNames : std::false_type {};
template <typename E>
struct HasNames<E, std::void_t<decltype(EnumNames(std::declval<E>()))>> : std::is_enum<E> {};

}  // namespace bunker::controller

namespace nlohmann {

template <>
struct adl_serializer<absl::Time> {
  static void to_json(json& out, const absl::Time& time) { out = absl::ToUnixNanos(time); }
  static void from_json(const json& in, absl::Time& time) {
    time = absl::FromUnixNanos(in.get<int64_t>());
  }
};

template <typename T>
struct adl_serializer<std::optional<T>> {
  static void to_json(json& out, const std::optional<T>& value) {
    if (value) {
      out = *value;
    } else {
      out = nullptr;
    }
  }
  static void from_json(const json& in, std::optional<T>& value) {
    if (in.is_null()) {
      value.reset();
    } else {
      value = in.get<T>();
    }
  }
};

template <typename E>
struct adl_serializer<E, std::enable_if_t<bunker::controller::HasNames<E>::value>> {
  static void to_json(json& out, const E& value) {
    out = std::string(bunker::controller::NameOf(value));
  }
  static void from_json(const json& in, E& value) {
    const std::optional<E> parsed =
        bunker::controller::ParseEnum<E>(in.get_ref<const std::string&>());
    if (!parsed) throw std::invalid_argument("unknown value " + in.dump());
    value = *parsed;
  }
};

}  // namespace nlohmann

namespace bunker {

// The macro's functions have to be in the struct's own namespace.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(AuditEntry, seq, at_unix_ms, actor,
                                                actor_tenant_id, key_id, tenant_id, partner_id,
                                                action, target, detail, outcome, request_id,
                                                suppressed, prev_hash, hash)

}  // namespace bunker

namespace bunker::controller {
namespace {

using nlohmann::json;

template <typename T>
std::string Encode(const T& row) {
  // Text from outside may be any bytes; what is not UTF-8 becomes U+FFFD.
  return json(row).dump(-1, ' ', false, json::error_handler_t::replace);
}

// The JSON library throws on a wrong type; here is where that ends.
template <typename T>
absl::Status Decode(std::string_view body, T* row) {
  try {
    const json parsed = json::parse(body, nullptr, /*allow_exceptions=*/false);
    if (!parsed.is_object()) {
      return ReasonError(absl::StatusCode::kDataLoss, "INTERNAL", "a row is not a JSON object");
    }
    parsed.get_to(*row);
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return ReasonError(absl::StatusCode::kDataLoss, "INTERNAL",
                       std::string("a row cannot be read: ") + error.what());
  }
}

}  // namespace

#define BUNKER_ROW(Type, ...) NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Type, __VA_ARGS__)

BUNKER_ROW(MetaRow, id, value)
BUNKER_ROW(Ownership, scope, tenant_id, partner_id)
BUNKER_ROW(Partner, id, name, created_at)
BUNKER_ROW(Tenant, id, name, partner_id, status, created_at)
BUNKER_ROW(User, id, tenant_id, name, role, status, permissions, group_ids, created_at)
BUNKER_ROW(UserGroup, id, tenant_id, name, parent_id, permissions, created_at, updated_at)
BUNKER_ROW(ApiKey, id, sha256, user_id, tenant_id, name, permissions, max_role, rate_limit_per_s,
           expires_at, revoked_at, created_at)
BUNKER_ROW(JoinToken, id, sha256, worker_name, ownership, shared, labels, expires_at, used_at,
           worker_id, created_at)
BUNKER_ROW(Resources, cpu_millicores, memory_mb, disk_mb)
BUNKER_ROW(WorkerFacts, capacity, arch, isolation, isolation_reason, labels)
BUNKER_ROW(WorkerDisk, capacity_bytes, used_bytes, cache_bytes, high_bytes, low_bytes)
BUNKER_ROW(Worker, id, name, ownership, shared, credential_sha256, certificate_sha256, status,
           draining, drain_deadline, drain_then, status_since, facts, disk, disk_version, boot_id,
           agent_version, token_labels, last_heartbeat, created_at)
BUNKER_ROW(BuildSource, kind, ref, path)
BUNKER_ROW(ImageConfig, entrypoint, cmd, env, working_dir, user, exposed_ports)
BUNKER_ROW(ResolvedImage, repository, manifest_digest, index_digest, layers_bytes, diff_ids, config)
BUNKER_ROW(ModelArtsFields, swr_path, canonical_path, service_type, services, visibility,
           workspace_id)
BUNKER_ROW(TagMoved, digest, seen_at)
BUNKER_ROW(Image, id, name, display_name, description, build_source, size_mib,
           default_cpu_millicores, default_memory_mb, default_disk_mb, ownership, owner, lazy_pull,
           preinstalled, arch, resource_category, origin, tags, modelarts, resolved, rootfs_digest,
           allocated_bytes, pull_secret, credential_id, tag_moved, tag_check_at, active,
           scan_status, scan_summary, scanned_at, created_at, updated_at)
BUNKER_ROW(RegistryCredential, id, name, ownership, owner, host, username, sealed, created_at,
           updated_at)
BUNKER_ROW(Group, id, name, description, ownership, auto_images, image_ids, worker_ids, created_at,
           updated_at)
BUNKER_ROW(StageTime, name, ms)
BUNKER_ROW(CacheEntry, image_id, worker_id, status, wanted, skip, queue_tag, reserved_bytes,
           change_id, assigned, assignment_version, observation_version, observed_ready, attempt,
           tag_check, tag_check_seen, failures, retry_at, stage, source, bytes_done, bytes_total,
           rate_bytes_per_s, recipe_digest, rootfs_digest, allocated_bytes, stages, error_code,
           error_message, retryable, created_at, updated_at, last_used_at)
BUNKER_ROW(BunkerTimings, queue_ms, place_ms, fetch_ms, boot_ms, agent_ms, first_exec_ms)
BUNKER_ROW(Bunker, id, name, tenant_id, partner_id, owner, lifecycle_mode, network_profile,
           cpu_millicores, memory_mb, disk_mb, max_lifetime_s, idle_timeout_s, session_type,
           session_ref, label_set, worker_labels, env_vars, status, status_reason, status_message,
           incarnation, worker_id, image_id, image_name, image_digest, start_kind, fallback_reason,
           isolation, timings, assigned, assignment_version, observation_version, stop_wanted,
           room_held, created_at, updated_at, started_at, expires_at, stopping_at, boot_since,
           last_activity_at, active_execs, terminated_at)
BUNKER_ROW(ScanReport, id, phase, phase_since, generation, requested, worker_id, assigned,
           assignment_version, has_document, decided, inventoried_at, ended_at, again,
           advisories_digest)

BUNKER_ROW(QuotaCaps, max_concurrent_bunkers, max_persistent_bunkers, max_cpu_millicores,
           max_memory_mb, max_disk_mb, max_gpu_count, per_bunker_max_cpu, per_bunker_max_memory,
           per_bunker_max_disk, per_bunker_max_gpu)
BUNKER_ROW(QuotaProfile, id, name, description, ownership, caps, created_at, updated_at)
BUNKER_ROW(QuotaAssignment, id, profile_id, target_kind, target_id, mode, tenant_id, ownership,
           created_at)

#undef BUNKER_ROW

// The body of a stored answer is bytes; as hex it survives whatever it holds.
static void to_json(json& out, const IdempotencyRecord& row) {
  out = json{{"tenant_id", row.tenant_id},       {"key_hex", HexEncode(row.key)},
             {"request_hash", row.request_hash}, {"status", row.status},
             {"body_hex", HexEncode(row.body)},  {"created_at", row.created_at}};
}
static void from_json(const json& in, IdempotencyRecord& row) {
  row.tenant_id = in.value("tenant_id", "");
  row.request_hash = in.value("request_hash", "");
  row.status = in.value("status", 0);
  row.created_at = in.value("created_at", absl::UnixEpoch());
  if (!HexDecode(in.value("key_hex", ""), &row.key) ||
      !HexDecode(in.value("body_hex", ""), &row.body)) {
    throw std::invalid_argument("not hex");
  }
}

#define BUNKER_CODEC(Type)                                        \
  std::string EncodeRow(const Type& row) { return Encode(row); }  \
  absl::Status DecodeRow(std::string_view body, Type* row) { return Decode(body, row); }

BUNKER_CODEC(MetaRow)
BUNKER_CODEC(Partner)
BUNKER_CODEC(Tenant)
BUNKER_CODEC(User)
BUNKER_CODEC(UserGroup)
BUNKER_CODEC(ApiKey)
BUNKER_CODEC(JoinToken)
BUNKER_CODEC(Worker)
BUNKER_CODEC(Image)
BUNKER_CODEC(Group)
BUNKER_CODEC(CacheEntry)
BUNKER_CODEC(Bunker)
BUNKER_CODEC(IdempotencyRecord)
BUNKER_CODEC(AuditEntry)
BUNKER_CODEC(RegistryCredential)
BUNKER_CODEC(QuotaProfile)
BUNKER_CODEC(QuotaAssignment)
BUNKER_CODEC(ScanReport)

#undef BUNKER_CODEC

}  // namespace bunker::controller
