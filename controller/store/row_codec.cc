#include "controller/store/row_codec.h"

#include <map>
#include <optional>
#include <set>
#include <type_traits>
#include <vector>

#include "common/base/hex.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/model/enum_names.h"
#include "controller/store/json_text.h"

namespace bunker::controller {
namespace {

// ---- writing --------------------------------------------------------------------------------

template <typename T>
void Put(JsonWriter& out, const T& value);

template <typename Values>
void PutAll(JsonWriter& out, const Values& values) {
  out.Raw('[');
  bool first = true;
  for (const auto& value : values) {
    if (!std::exchange(first, false)) out.Raw(',');
    Put(out, value);
  }
  out.Raw(']');
}

template <typename T>
void PutValue(JsonWriter& out, const std::vector<T>& values) {
  PutAll(out, values);
}
template <typename T>
void PutValue(JsonWriter& out, const std::set<T>& values) {
  PutAll(out, values);
}
template <typename T>
void PutValue(JsonWriter& out, const std::optional<T>& value) {
  if (value) {
    Put(out, *value);
  } else {
    out.Null();
  }
}
template <typename T>
void PutValue(JsonWriter& out, const std::map<std::string, T>& values) {
  out.Raw('{');
  bool first = true;
  for (const auto& [name, value] : values) {
    if (!std::exchange(first, false)) out.Raw(',');
    out.String(name);
    out.Raw(':');
    Put(out, value);
  }
  out.Raw('}');
}
inline void PutValue(JsonWriter& out, const std::string& value) {
  out.String(value);
}
inline void PutValue(JsonWriter& out, const absl::Time& value) {
  out.Signed(absl::ToUnixNanos(value));
}

// A struct, by its fields, that BUNKER_ROW names.
struct PutField {
  JsonWriter& out;
  bool first = true;
  template <typename T>
  void operator()(std::string_view name, const T& value) {
    if (!std::exchange(first, false)) out.Raw(',');
    out.Key(name);
    Put(out, value);
  }
};

template <typename T>
void PutStruct(JsonWriter& out, const T& row) {
  out.Raw('{');
  ForEachField(row, PutField{out});
  out.Raw('}');
}

template <typename T>
constexpr bool kHasFields = requires(const T& row, PutField field) {
  ForEachField(row, field);
};

template <typename T>
void Put(JsonWriter& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out.Bool(value);
  } else if constexpr (std::is_enum_v<T>) {
    out.String(NameOf(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    out.Double(value);
  } else if constexpr (std::is_unsigned_v<T>) {
    out.Unsigned(value);
  } else if constexpr (std::is_integral_v<T>) {
    out.Signed(value);
  } else if constexpr (kHasFields<T>) {
    PutStruct(out, value);
  } else {
    PutValue(out, value);
  }
}

// ---- reading --------------------------------------------------------------------------------

template <typename T>
void Take(JsonReader& in, T* value);

// One value that has the text for itself.
template <typename T>
void TakeFrom(std::string_view text, JsonReader& outer, T* value) {
  JsonReader in(text);
  Take(in, value);
  in.End();
  if (!in.ok()) outer.Fail(in.error());
}

template <typename T>
void TakeValue(JsonReader& in, std::vector<T>* values) {
  values->clear();
  for (const std::string_view text : in.ReadValues()) {
    TakeFrom(text, in, &values->emplace_back());
  }
}
template <typename T>
void TakeValue(JsonReader& in, std::set<T>* values) {
  values->clear();
  for (const std::string_view text : in.ReadValues()) {
    T value{};
    TakeFrom(text, in, &value);
    values->insert(std::move(value));
  }
}
template <typename T>
void TakeValue(JsonReader& in, std::optional<T>* value) {
  if (in.TakeNull()) {
    value->reset();
  } else {
    Take(in, &value->emplace());
  }
}
template <typename T>
void TakeValue(JsonReader& in, std::map<std::string, T>* values) {
  values->clear();
  for (const JsonReader::Member& member : in.ReadMembers()) {
    std::string name;
    TakeFrom('"' + std::string(member.name) + '"', in, &name);
    TakeFrom(member.value, in, &(*values)[name]);
  }
}
inline void TakeValue(JsonReader& in, std::string* value) {
  in.Read(value);
}
inline void TakeValue(JsonReader& in, absl::Time* value) {
  int64_t nanos = 0;
  in.Read(&nanos);
  *value = absl::FromUnixNanos(nanos);
}

// Fields are mostly in the order in which they are declared: then each is found at once.
struct TakeField {
  JsonReader& in;
  const std::vector<JsonReader::Member>& members;
  size_t next = 0;
  template <typename T>
  void operator()(std::string_view name, T& value) {
    for (size_t i = 0; i < members.size(); ++i) {
      const size_t at = (next + i) % members.size();
      if (members[at].name != name) continue;
      next = at + 1;
      TakeFrom(members[at].value, in, &value);
      return;
    }
  }
};

template <typename T>
void TakeStruct(JsonReader& in, T* row) {
  const std::vector<JsonReader::Member> members = in.ReadMembers();
  if (in.ok()) ForEachField(*row, TakeField{in, members});
}

template <typename Wide, typename T>
void TakeNumber(JsonReader& in, T* value) {
  Wide wide = 0;
  in.Read(&wide);
  *value = static_cast<T>(wide);
  if (static_cast<Wide>(*value) != wide) in.Fail("a number out of range");
}

template <typename T>
void Take(JsonReader& in, T* value) {
  if constexpr (std::is_same_v<T, bool>) {
    in.Read(value);
  } else if constexpr (std::is_enum_v<T>) {
    std::string name;
    in.Read(&name);
    const std::optional<T> parsed = ParseEnum<T>(name);
    if (!parsed) return in.Fail("unknown value " + name);
    *value = *parsed;
  } else if constexpr (std::is_floating_point_v<T>) {
    TakeNumber<double>(in, value);
  } else if constexpr (std::is_unsigned_v<T>) {
    TakeNumber<uint64_t>(in, value);
  } else if constexpr (std::is_integral_v<T>) {
    TakeNumber<int64_t>(in, value);
  } else if constexpr (kHasFields<T>) {
    TakeStruct(in, value);
  } else {
    TakeValue(in, value);
  }
}

template <typename T>
std::string Encode(const T& row) {
  JsonWriter out;
  out.Reserve(1024);
  PutStruct(out, row);
  return out.Take();
}

template <typename T>
absl::Status Decode(std::string_view body, T* row) {
  *row = T();
  JsonReader in(body);
  TakeStruct(in, row);
  in.End();
  if (in.ok()) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kDataLoss, "INTERNAL",
                     "a row cannot be read: " + in.error());
}

}  // namespace

// BUNKER_EACH(m, a, b, …) is m(a) m(b) …, for 256 arguments at most.
#define BUNKER_PARENS ()
#define BUNKER_SCAN(...) BUNKER_SCAN3(BUNKER_SCAN3(BUNKER_SCAN3(BUNKER_SCAN3(__VA_ARGS__))))
#define BUNKER_SCAN3(...) BUNKER_SCAN2(BUNKER_SCAN2(BUNKER_SCAN2(BUNKER_SCAN2(__VA_ARGS__))))
#define BUNKER_SCAN2(...) BUNKER_SCAN1(BUNKER_SCAN1(BUNKER_SCAN1(BUNKER_SCAN1(__VA_ARGS__))))
#define BUNKER_SCAN1(...) BUNKER_SCAN0(BUNKER_SCAN0(BUNKER_SCAN0(BUNKER_SCAN0(__VA_ARGS__))))
#define BUNKER_SCAN0(...) __VA_ARGS__
#define BUNKER_EACH(m, ...) BUNKER_SCAN(BUNKER_EACH_FIRST(m, __VA_ARGS__))
#define BUNKER_EACH_FIRST(m, first, ...) \
  m(first) __VA_OPT__(BUNKER_EACH_AGAIN BUNKER_PARENS(m, __VA_ARGS__))
#define BUNKER_EACH_AGAIN() BUNKER_EACH_FIRST

// Names a struct's fields, in its own namespace.
#define BUNKER_FIELD(field) visit(#field, row.field);
#define BUNKER_ROW(Type, ...)                         \
  template <typename Visit>                           \
  void ForEachField(const Type& row, Visit&& visit) { \
    BUNKER_EACH(BUNKER_FIELD, __VA_ARGS__)            \
  }                                                   \
  template <typename Visit>                           \
  void ForEachField(Type& row, Visit&& visit) {       \
    BUNKER_EACH(BUNKER_FIELD, __VA_ARGS__)            \
  }
}  // namespace bunker::controller

namespace bunker {
BUNKER_ROW(AuditEntry, seq, at_unix_ms, actor, actor_tenant_id, key_id, tenant_id, partner_id,
           action, target, detail, outcome, request_id, suppressed, prev_hash, hash)
}  // namespace bunker

namespace bunker::controller {

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
BUNKER_ROW(WorkerFacts, capacity, arch, isolation, isolation_reason, labels,
           network_profiles, network_reason, bridges)
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
BUNKER_ROW(Bridge, id, name, ownership, owner, reach, tenant_ids, worker_ids, created_at)
BUNKER_ROW(Group, id, name, description, ownership, auto_images, image_ids, worker_ids, created_at,
           updated_at)
BUNKER_ROW(StageTime, name, ms)
BUNKER_ROW(CacheEntry, image_id, worker_id, status, wanted, skip, queue_tag, reserved_bytes,
           change_id, assigned, assignment_version, observation_version, observed_ready, attempt,
           tag_check, tag_check_seen, failures, retry_at, stage, source, bytes_done, bytes_total,
           rate_bytes_per_s, recipe_digest, rootfs_digest, allocated_bytes, stages, error_code,
           error_message, retryable, created_at, updated_at, last_used_at)
BUNKER_ROW(BunkerTimings, queue_ms, place_ms, fetch_ms, boot_ms, agent_ms, first_exec_ms)
BUNKER_ROW(BunkerUsage, cpu_s, rss_bytes, disk_bytes, at, net_rx_bytes, net_tx_bytes)
BUNKER_ROW(BunkerInterface, if_name, bridge_name, bridge_id, spoof_guard, mac, ipv4, gateway)
BUNKER_ROW(MainProgram, args, env, restart, allow_root)
BUNKER_ROW(MainStatus, state, ended, exit_code, signal, restarts, message)
BUNKER_ROW(Bunker, id, name, tenant_id, partner_id, owner, lifecycle_mode, network_profile,
           network_allowlist, interfaces, bandwidth_mbit, disk_bytes_per_s, disk_iops, private_ip,
           cpu_millicores, memory_mb, disk_mb, max_lifetime_s, idle_timeout_s, on_idle,
           session_type, session_ref, label_set, worker_labels, env_vars, main, main_status, status,
           status_reason, status_message, incarnation, worker_id, image_id, image_name,
           image_digest, snapshot_id, snapshot_memory, final_snapshot_id, start_kind,
           fallback_reason, isolation, timings, assigned, assignment_version, observation_version,
           stop_wanted, goal, halted, disk_made, room_held, created_at, updated_at, started_at,
           expires_at, stopping_at, boot_since,
           last_activity_at, active_execs, terminated_at, usage, change_id)
BUNKER_ROW(ScanReport, id, phase, phase_since, generation, requested, worker_id, assigned,
           assignment_version, has_document, decided, inventoried_at, ended_at, again,
           advisories_digest)
BUNKER_ROW(Snapshot, id, name, tenant_id, partner_id, owner, bunker_id, worker_id, image_id,
           image_name, image_digest, disk_mb, memory, memory_mb, cpu_millicores, network_card,
           size_bytes, status, error_code, error_message,
           assigned, assignment_version, deleting, told_at, created_at, ready_at)

BUNKER_ROW(QuotaCaps, max_concurrent_bunkers, max_persistent_bunkers, max_cpu_millicores,
           max_memory_mb, max_disk_mb, max_gpu_count, per_bunker_max_cpu, per_bunker_max_memory,
           per_bunker_max_disk, per_bunker_max_gpu)
BUNKER_ROW(QuotaProfile, id, name, description, ownership, caps, created_at, updated_at)
BUNKER_ROW(QuotaAssignment, id, profile_id, target_kind, target_id, mode, tenant_id, ownership,
           created_at)

// The body of a stored answer is bytes; as hex it survives whatever it holds.
struct IdempotencyBody {
  std::string tenant_id;
  std::string key_hex;
  std::string request_hash;
  int status = 0;
  std::string body_hex;
  absl::Time created_at = absl::UnixEpoch();
};
BUNKER_ROW(IdempotencyBody, tenant_id, key_hex, request_hash, status, body_hex, created_at)

#undef BUNKER_ROW
#undef BUNKER_FIELD

std::string EncodeRow(const IdempotencyRecord& row) {
  return Encode(IdempotencyBody{row.tenant_id, HexEncode(row.key), row.request_hash, row.status,
                                HexEncode(row.body), row.created_at});
}
absl::Status DecodeRow(std::string_view text, IdempotencyRecord* row) {
  IdempotencyBody body;
  RETURN_IF_ERROR(Decode(text, &body));
  *row = IdempotencyRecord();
  row->tenant_id = body.tenant_id;
  row->request_hash = body.request_hash;
  row->status = body.status;
  row->created_at = body.created_at;
  if (HexDecode(body.key_hex, &row->key) && HexDecode(body.body_hex, &row->body)) {
    return absl::OkStatus();
  }
  return ReasonError(absl::StatusCode::kDataLoss, "INTERNAL", "a row cannot be read: not hex");
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
BUNKER_CODEC(AuditEntry)
BUNKER_CODEC(RegistryCredential)
BUNKER_CODEC(QuotaProfile)
BUNKER_CODEC(QuotaAssignment)
BUNKER_CODEC(ScanReport)
BUNKER_CODEC(Snapshot)
BUNKER_CODEC(Bridge)

#undef BUNKER_CODEC

}  // namespace bunker::controller
