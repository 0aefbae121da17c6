// Every field of every row survives the way to the store and back. The rows are filled by hand:
// a field that is added to a struct and forgotten in the codec shows up in the sizes below.
#include "controller/store/row_codec.h"

#include "common/base/reason.h"
#include "gtest/gtest.h"

namespace bunker::controller {
namespace {

const absl::Time kTime = absl::FromUnixNanos(1'800'000'000'123'456'789);

// Encoding is canonical (sorted keys), so equal text means equal rows.
template <typename T>
void RoundTrip(const T& row) {
  T copy;
  const std::string text = EncodeRow(row);
  ASSERT_TRUE(DecodeRow(text, &copy).ok()) << text;
  EXPECT_EQ(EncodeRow(copy), text);
  // And the fields really are in it: a default row reads otherwise.
  EXPECT_NE(EncodeRow(T{}), text);
}

Bunker FullBunker() {
  Bunker row;
  row.id = "bnk_1";
  row.name = "n";
  row.tenant_id = "t";
  row.partner_id = "p";
  row.owner = "u";
  row.lifecycle_mode = LifecycleMode::kSession;
  row.network_profile = NetworkProfile::kRegistry;
  row.interfaces = {{"eth0", "br-lab", "br_1", false, "02:00:00:00:00:01", "192.0.2.5/24",
                     "192.0.2.1"}};
  row.cpu_millicores = 1;
  row.memory_mb = 2;
  row.disk_mb = 3;
  row.max_lifetime_s = 4;
  row.idle_timeout_s = 5;
  row.session_type = "api";
  row.session_ref = "ref";
  row.label_set = {{"a", "b"}};
  row.worker_labels = {{"c", "d"}};
  row.env_vars = {{"E", std::string("\xff\n", 2)}};
  row.status = BunkerStatus::kStopping;
  row.status_reason = "DELETED";
  row.status_message = "because";
  row.incarnation = 7;
  row.worker_id = "w";
  row.image_id = "i";
  row.image_name = "in";
  row.image_digest = "d";
  row.snapshot_id = "snap_1";
  row.final_snapshot_id = "snap_2";
  row.start_kind = "cold";
  row.fallback_reason = "f";
  row.isolation = "tcg";
  row.timings = {1.5, 2.5, 3.5, 4.5, 5.5, 6.5};
  row.assigned = true;
  row.assignment_version = (uint64_t{1} << 63) + 5;
  row.observation_version = 9;
  row.stop_wanted = true;
  row.on_idle = OnIdle::kPause;
  row.goal = BunkerGoal::kStop;
  row.halted = row.disk_made = true;
  row.room_held = true;
  row.created_at = row.updated_at = row.last_activity_at = kTime;
  row.started_at = row.expires_at = row.stopping_at = row.boot_since = row.terminated_at = kTime;
  row.active_execs = 3;
  return row;
}

TEST(RowCodec, EveryFieldOfABunkerSurvives) {
  const Bunker row = FullBunker();
  Bunker copy;
  ASSERT_TRUE(DecodeRow(EncodeRow(row), &copy).ok());
  EXPECT_EQ(copy.id, row.id);
  EXPECT_EQ(copy.lifecycle_mode, row.lifecycle_mode);
  EXPECT_EQ(copy.network_profile, row.network_profile);
  EXPECT_EQ(copy.interfaces, row.interfaces);
  EXPECT_EQ(copy.status, row.status);
  EXPECT_EQ(copy.assignment_version, row.assignment_version);
  EXPECT_EQ(copy.timings, row.timings);
  EXPECT_EQ(copy.created_at, kTime);
  EXPECT_EQ(copy.terminated_at, kTime);
  EXPECT_EQ(copy.label_set, row.label_set);
  EXPECT_EQ(copy.snapshot_id, row.snapshot_id);
  EXPECT_EQ(copy.final_snapshot_id, row.final_snapshot_id);
  EXPECT_EQ(copy.env_vars.at("E"), "\xef\xbf\xbd\n");  // not UTF-8: replaced, not lost
  EXPECT_TRUE(copy.room_held);
  copy.terminated_at.reset();
  Bunker live;
  ASSERT_TRUE(DecodeRow(EncodeRow(copy), &live).ok());
  EXPECT_TRUE(live.live());
}

TEST(RowCodec, RowsRoundTrip) {
  RoundTrip(FullBunker());
  RoundTrip(MetaRow{"boot_counter", 41});
  RoundTrip(Partner{"ptr_1", "p", kTime});
  RoundTrip(Tenant{"tnt_1", "t", "ptr_1", TenantStatus::kSuspended, kTime});
  RoundTrip(User{"usr_1", "tnt_1", "u", Role::kSuperAdmin, UserStatus::kDisabled,
                 {"scaibunker:create"}, {"grp_1"}, kTime});
  RoundTrip(UserGroup{"grp_1", "tnt_1", "g", "grp_0", {"scaibunker:create"}, kTime, kTime});
  RoundTrip(ApiKey{"key_1", "s", "usr_1", "tnt_1", "k", std::set<std::string>{"scaibunker:files"},
                   Role::kTenantUser, 7, kTime, std::nullopt, kTime});
  RoundTrip(ApiKey{"key_1", "s", "usr_1", "tnt_1", "k", std::nullopt, std::nullopt, std::nullopt,
                   std::nullopt, kTime, kTime});
  RoundTrip(AuditEntry{7, -1, "usr_1", "tnt_1", "key_1", "tnt_2", "ptr_1", "A.B", "t\"\n", "d",
                       "ok", "req_1", 3, "p", "h"});
  RoundTrip(JoinToken{"wtk_1",
                      "s",
                      "w",
                      {Scope::kPartner, "", "ptr_1"},
                      false,
                      {{"a", "b"}},
                      kTime,
                      kTime,
                      "wrk_1",
                      kTime});
  RoundTrip(Group{"ag_1", "g", "d", {Scope::kPlatform, "", ""}, true, {"i"}, {"w"}, kTime, kTime});
  Worker worker;
  worker.id = "wrk_1";
  worker.ownership.scope = Scope::kPlatform;
  worker.status = WorkerStatus::kDraining;
  worker.facts = {{1, 2, 3}, Arch::kAarch64, "kvm", "why", {{"x", "y"}}};
  worker.facts.bridges = {"br-lab"};
  worker.token_labels = {{"x", "z"}};
  worker.status_since = worker.last_heartbeat = worker.created_at = kTime;
  RoundTrip(worker);
  EXPECT_EQ(worker.labels().at("x"), "z");
  Image image;
  image.id = "img_1";
  image.build_source = {SourceKind::kTar, "", "/p"};
  image.resolved =
      ResolvedImage{"r", "d", "i", 5, {"x"}, {{"e"}, {"c"}, {"A=1"}, "/", "u", {"80"}}};
  image.scan_status = ScanStatus::kFailed;
  image.arch = Arch::kX86_64;
  image.pull_secret = "hub";
  image.credential_id = "rcr_1";
  image.tag_moved = TagMoved{"sha256:d", kTime};
  image.tag_check_at = kTime;
  image.created_at = image.updated_at = kTime;
  RoundTrip(image);
  Image copy;
  ASSERT_TRUE(DecodeRow(EncodeRow(image), &copy).ok());
  EXPECT_EQ(copy.resolved, image.resolved);
  EXPECT_EQ(copy.tag_moved, image.tag_moved);
  EXPECT_EQ(copy.tag_check_at, image.tag_check_at);
  EXPECT_EQ(copy.credential_id, image.credential_id);
  RegistryCredential credential;
  credential.id = "rcr_1";
  credential.name = "hub";
  credential.ownership.tenant_id = "t";
  credential.owner = "u";
  credential.host = "docker.io";
  credential.username = "ada";
  credential.sealed = "1.abc.def";
  credential.created_at = credential.updated_at = kTime;
  RoundTrip(credential);
  RoundTrip(Bridge{"br_1",
                   "br-lab",
                   {Scope::kPartner, "", "ptr_1"},
                   "usr_1",
                   {Scope::kPlatform, "", ""},
                   {"tnt_1", "tnt_2"},
                   {"wrk_1"},
                   kTime});
  CacheEntry entry;
  entry.image_id = "i";
  entry.worker_id = "w";
  entry.status = CacheStatus::kFailed;
  entry.retry_at = kTime;
  entry.tag_check = 2;
  entry.tag_check_seen = 1;
  entry.stages = {{"pulling", 12.25}};
  entry.created_at = entry.updated_at = entry.last_used_at = kTime;
  RoundTrip(entry);
  IdempotencyRecord record;
  record.tenant_id = "t";
  record.key = std::string("\0\xff", 2);
  record.body = std::string("\x00\x80{}", 4);
  record.created_at = kTime;
  RoundTrip(record);
  IdempotencyRecord same;
  ASSERT_TRUE(DecodeRow(EncodeRow(record), &same).ok());
  EXPECT_EQ(same.body, record.body);
  EXPECT_EQ(same.id(), record.id());
}

TEST(RowCodec, EveryFieldOfASnapshotSurvives) {
  Snapshot snapshot;
  snapshot.id = "snap_1";
  snapshot.name = "s";
  snapshot.tenant_id = "t";
  snapshot.partner_id = "p";
  snapshot.owner = "u";
  snapshot.bunker_id = "b";
  snapshot.worker_id = "w";
  snapshot.image_id = "i";
  snapshot.image_name = "in";
  snapshot.image_digest = "d";
  snapshot.disk_mb = 3;
  snapshot.size_bytes = uint64_t{1} << 40;
  snapshot.status = SnapshotStatus::kFailed;
  snapshot.error_code = "DISK_FULL";
  snapshot.error_message = "m";
  snapshot.assigned = snapshot.deleting = true;
  snapshot.assignment_version = 7;
  snapshot.told_at = snapshot.created_at = kTime;
  snapshot.ready_at = kTime;
  RoundTrip(snapshot);
  Snapshot again;
  ASSERT_TRUE(DecodeRow(EncodeRow(snapshot), &again).ok());
  EXPECT_EQ(again.size_bytes, snapshot.size_bytes);
  EXPECT_EQ(again.status, snapshot.status);
  EXPECT_EQ(again.assignment_version, snapshot.assignment_version);
  EXPECT_TRUE(again.deleting && again.assigned);
  EXPECT_EQ(again.ready_at, kTime);
}

TEST(RowCodec, MissingFieldsGetDefaultsAndWrongOnesAreRefused) {
  Image image;
  ASSERT_TRUE(DecodeRow(R"({"id":"img_1","later_field":1})", &image).ok());
  EXPECT_EQ(image.id, "img_1");
  EXPECT_EQ(image.default_memory_mb, 512u);
  EXPECT_TRUE(image.active);
  for (const char* bad : {"", "[]", "{", R"({"id":1})", R"({"scan_status":"great"})",
                          R"({"arch":3})", R"({"build_source":[]})"}) {
    Image row;
    EXPECT_EQ(DecodeRow(bad, &row).code(), absl::StatusCode::kDataLoss) << bad;
  }
}

}  // namespace
}  // namespace bunker::controller
