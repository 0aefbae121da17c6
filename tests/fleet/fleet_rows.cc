#include "tests/fleet/fleet_rows.h"

#include <algorithm>
#include <utility>

#include "common/base/id.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "controller/store/row_codec.h"
#include "fmt/format.h"

namespace bunker::controller {
namespace {

constexpr size_t kBatchRows = 5000;
const std::string kDigest = "sha256:" + std::string(64, 'a');

// Writes rows in batches of a bounded size.
class Writer {
 public:
  explicit Writer(Store& store) : store_(store) {}

  template <typename T>
  absl::Status Put(Noun noun, std::string id, const T& row) {
    batch_.push_back({noun, std::move(id), [body = EncodeRow(row)] { return body; }});
    return batch_.size() < kBatchRows ? absl::OkStatus() : Flush();
  }
  absl::Status Flush() {
    return batch_.empty() ? absl::OkStatus()
                          : CommitAndWait(store_, std::exchange(batch_, Batch{}));
  }

 private:
  Store& store_;
  Batch batch_;
};

Worker MakeWorker(size_t number, const std::string& credential, Resources capacity, absl::Time now,
                  Rng& rng) {
  Worker worker;
  worker.id = NewId("wrk_", now, rng);
  worker.name = fmt::format("seeded{}", number);
  worker.ownership = {Scope::kPlatform, "", ""};
  worker.shared = true;
  worker.credential_sha256 = Sha256Hex(credential);
  worker.status = WorkerStatus::kOnline;
  worker.facts.capacity = capacity;
  worker.facts.arch = Arch::kX86_64;
  worker.facts.isolation = "kvm";
  worker.boot_id = fmt::format("scripted-host-seeded{}", number);
  worker.status_since = worker.last_heartbeat = worker.created_at = now;
  return worker;
}

Image MakeImage(const BootstrapResult& owner, absl::Time now, Rng& rng) {
  Image image;
  image.id = NewId("img_", now, rng);
  image.name = "seeded";
  image.build_source.ref = "registry.example/seeded:1";
  image.size_mib = 256;
  image.default_cpu_millicores = 1000;
  image.default_memory_mb = 256;
  image.default_disk_mb = 256;
  image.ownership = {Scope::kTenant, owner.tenant_id, owner.partner_id};
  image.owner = owner.user_id;
  image.arch = Arch::kX86_64;
  image.resolved.emplace();
  image.resolved->repository = "registry.example/seeded";
  image.resolved->manifest_digest = kDigest;
  image.resolved->config.cmd = {"/bin/sh"};
  image.resolved->config.env = {"PATH=/usr/bin:/bin"};
  image.rootfs_digest = "fsverity-sha256:" + Sha256Hex("rootfs " + kDigest);
  image.allocated_bytes = 64 << 20;
  image.created_at = image.updated_at = now;
  return image;
}

CacheEntry MakeEntry(const Image& image, const std::string& worker_id, uint64_t version,
                     absl::Time now) {
  CacheEntry entry;
  entry.image_id = image.id;
  entry.worker_id = worker_id;
  entry.status = CacheStatus::kReady;
  entry.assigned = entry.wanted = true;
  entry.assignment_version = version;
  entry.rootfs_digest = image.rootfs_digest;
  entry.allocated_bytes = image.allocated_bytes;
  entry.created_at = entry.updated_at = entry.last_used_at = now;
  return entry;
}

Bunker MakeBunker(const BootstrapResult& owner, const Image& image, std::string name,
                  absl::Time now, Rng& rng) {
  Bunker row;
  row.id = NewId("bnk_", now, rng);
  row.name = std::move(name);
  row.tenant_id = owner.tenant_id;
  row.partner_id = owner.partner_id;
  row.owner = owner.user_id;
  row.cpu_millicores = 1000;
  row.memory_mb = 256;
  row.disk_mb = 256;
  row.max_lifetime_s = 24 * 3600;
  row.image_id = image.id;
  row.image_name = image.name;
  row.image_digest = kDigest;
  row.created_at = row.updated_at = row.last_activity_at = now;
  row.expires_at = now + absl::Seconds(row.max_lifetime_s);
  return row;
}

Bunker MakeFinished(Bunker row, size_t number) {
  row.worker_id = "wrk_" + std::string(32, static_cast<char>('0' + number % 10));
  row.label_set["job"] = fmt::format("job-{}", number % 1000);
  row.start_kind = "cold";
  row.isolation = "kvm";
  row.assignment_version = (uint64_t{1} << 40) + number;
  row.stop_wanted = true;
  row.started_at = row.created_at + absl::Milliseconds(900);
  row.terminated_at = row.updated_at = row.created_at + absl::Minutes(5);
  const bool failed = number % 10 == 9;
  row.status = failed ? BunkerStatus::kFailed : BunkerStatus::kStopped;
  row.status_reason = failed ? "BOOT_FAILED" : "DELETED";
  return row;
}

}  // namespace

absl::StatusOr<BootstrapResult> FirstOwner(Store& store) {
  User user;
  RETURN_IF_ERROR(store.Load(Noun::kUser, [&](std::string_view, std::string_view body) {
    return user.id.empty() ? DecodeRow(body, &user) : absl::OkStatus();
  }));
  Tenant tenant;
  RETURN_IF_ERROR(store.Load(Noun::kTenant, [&](std::string_view id, std::string_view body) {
    return id == user.tenant_id ? DecodeRow(body, &tenant) : absl::OkStatus();
  }));
  if (tenant.id.empty()) return absl::NotFoundError("the store has no tenant; run init first");
  return BootstrapResult{tenant.partner_id, tenant.id, user.id, ""};
}

absl::StatusOr<FleetAccess> SeedFleet(Store& store, const BootstrapResult& owner,
                                      const FleetRows& rows, absl::Time now) {
  SeededRng rng(7);
  Writer writer(store);
  FleetAccess access;
  const Image image = MakeImage(owner, now, rng);
  RETURN_IF_ERROR(writer.Put(Noun::kImage, image.id, image));
  Group group;
  group.id = NewId("ag_", now, rng);
  group.name = "seeded";
  group.ownership = image.ownership;
  group.image_ids = {image.id};
  group.created_at = group.updated_at = now;
  uint64_t version = 1;  // of no boot: below all that a controller gives
  for (size_t i = 0; i < rows.workers; ++i) {
    const std::string credential = fmt::format("wkc_{}", Sha256Hex(fmt::format("seeded {}", i)));
    const Worker worker = MakeWorker(i, credential, rows.capacity, now, rng);
    const CacheEntry entry = MakeEntry(image, worker.id, version++, now);
    RETURN_IF_ERROR(writer.Put(Noun::kWorker, worker.id, worker));
    RETURN_IF_ERROR(writer.Put(Noun::kCacheEntry, entry.key(), entry));
    group.worker_ids.insert(worker.id);
    access.worker_names.push_back(worker.name);
    access.worker_ids.push_back(worker.id);
    access.credentials.push_back(credential);
  }
  RETURN_IF_ERROR(writer.Put(Noun::kGroup, group.id, group));
  for (size_t i = 0; i < rows.bunkers; ++i) {
    Bunker row = MakeBunker(owner, image, fmt::format("live-{}", i), now, rng);
    row.worker_id = access.worker_ids[i % rows.workers];
    row.status = rows.bunkers_run ? BunkerStatus::kRunning : BunkerStatus::kProvisioning;
    row.assigned = row.room_held = true;
    row.assignment_version = version++;
    row.boot_since = now;
    if (rows.bunkers_run) row.started_at = now;
    access.bunker_ids.push_back(row.id);
    RETURN_IF_ERROR(writer.Put(Noun::kBunker, row.id, row));
  }
  const absl::Duration step =
      absl::Hours(23) / static_cast<int64_t>(std::max<size_t>(1, rows.finished));
  for (size_t i = 0; i < rows.finished; ++i) {
    const absl::Time created = now - absl::Hours(24) + static_cast<int64_t>(i) * step;
    const Bunker row =
        MakeFinished(MakeBunker(owner, image, fmt::format("finished-{}", i), created, rng), i);
    RETURN_IF_ERROR(writer.Put(Noun::kBunker, row.id, row));
  }
  RETURN_IF_ERROR(writer.Flush());
  return access;
}

}  // namespace bunker::controller
