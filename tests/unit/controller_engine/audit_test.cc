// The chain: undone with its turn, gone on with after a restart, read in pages.
#include <future>
#include <memory>

#include "absl/time/clock.h"
#include "controller/engine/audit_log.h"
#include "controller/engine/audit_reader.h"
#include "controller/engine/audit_retention.h"
#include "controller/store/row_codec.h"
#include "tests/unit/controller_engine/harness.h"

namespace bunker::controller {
namespace {

AuditEntry Row(const std::string& action, const std::string& tenant = "tnt_a") {
  AuditEntry entry;
  entry.actor = "usr_a";
  entry.tenant_id = tenant;
  entry.partner_id = "ptr_a";
  entry.action = action;
  entry.target = "img_\n\"ü";
  entry.outcome = "ok";
  entry.request_id = "req_1";
  return entry;
}

void Append(Harness& h, const std::string& action, const std::string& tenant = "tnt_a") {
  h.Run([&](Engine& e, Turn& t) { e.audit().Append(t, Row(action, tenant)); });
}

AuditPage Read(MemStore& store, AuditQuery query) {
  AuditReader reader(store);
  std::promise<absl::StatusOr<AuditPage>> promise;
  reader.Read(std::move(query),
              [&](absl::StatusOr<AuditPage> page) { promise.set_value(std::move(page)); });
  auto page = promise.get_future().get();
  EXPECT_TRUE(page.ok()) << page.status();
  return *std::move(page);
}

std::vector<uint64_t> Seqs(const AuditPage& page) {
  std::vector<uint64_t> seqs;
  for (const AuditRecord& record : page.records) seqs.push_back(record.entry.seq);
  return seqs;
}

// Whether the store's rows chain from the first to the last.
void ExpectChained(const MemStore& store, uint64_t count) {
  std::string hash = AuditGenesis();
  uint64_t seq = 0;
  for (const auto& [key, body] : store.rows()) {
    if (key.first != Noun::kAudit) continue;
    const AuditRecord record = AuditRecordOf({key.second, body});
    EXPECT_TRUE(record.intact) << body;
    EXPECT_EQ(record.entry.seq, ++seq);
    EXPECT_EQ(record.entry.prev_hash, hash);
    hash = record.entry.hash;
  }
  EXPECT_EQ(seq, count);
}

TEST(Audit, ChainsAndGoesOnAfterARestart) {
  Harness h;
  for (int i = 0; i < 5; ++i) Append(h, "A" + std::to_string(i));
  ExpectChained(*h.store, 5);
  Harness again({}, false, h.store->rows());
  Append(again, "later");
  ExpectChained(*again.store, 6);
}

TEST(Audit, ARolledBackTurnLeavesNoRow) {
  Harness h;
  Append(h, "first");
  h.Run([&](Engine& e, Turn& t) {
    const size_t savepoint = t.Savepoint();
    e.audit().Append(t, Row("gone"));
    e.audit().Append(t, Row("gone, too"));
    t.RollbackTo(savepoint);
    e.audit().Append(t, Row("second"));
  });
  ExpectChained(*h.store, 2);
  h.store->SetFull(true);
  Append(h, "no room");
  h.store->SetFull(false);
  Append(h, "third");
  ExpectChained(*h.store, 3);
  EXPECT_EQ(h.Do([](Engine& e, Turn&) { return e.audit().head().seq; }), 3u);
}

TEST(Audit, EveryFieldIsCovered) {
  AuditEntry row = Row("A");
  row.seq = 7;
  row.prev_hash = AuditGenesis();
  const std::string hash = AuditHash(row);
  const auto differs = [&](auto change) {
    AuditEntry other = row;
    change(other);
    return AuditHash(other) != hash;
  };
  EXPECT_TRUE(differs([](AuditEntry& e) { ++e.seq; }));
  EXPECT_TRUE(differs([](AuditEntry& e) { ++e.at_unix_ms; }));
  EXPECT_TRUE(differs([](AuditEntry& e) { ++e.suppressed; }));
  for (std::string AuditEntry::*field :
       {&AuditEntry::actor, &AuditEntry::actor_tenant_id, &AuditEntry::key_id,
        &AuditEntry::tenant_id, &AuditEntry::partner_id, &AuditEntry::action, &AuditEntry::target,
        &AuditEntry::detail, &AuditEntry::outcome, &AuditEntry::request_id,
        &AuditEntry::prev_hash}) {
    EXPECT_TRUE(differs([&](AuditEntry& e) { e.*field += "x"; }));
  }
  // Nothing can be moved from one field to the next.
  EXPECT_TRUE(differs([](AuditEntry& e) {
    e.target = "";
    e.detail = "img_\n\"ü";
  }));
  // The form is fixed: other programs compute it, too.
  EXPECT_EQ(hash, "2d9dad8e83c29542a8a0b891443f55a74ef785ae97584377669ffdcf3fcebc13");
}

TEST(Audit, EditsShow) {
  Harness h;
  Append(h, "A");
  Append(h, "B");
  const MemStore::Rows rows = h.store->rows();
  const std::pair<Noun, std::string> key{Noun::kAudit, AuditRowId(1)};
  const std::string body = rows.at(key);
  const auto intact = [&](const std::string& id, const std::string& text) {
    return AuditRecordOf({id, text}).intact;
  };
  EXPECT_TRUE(intact(AuditRowId(1), body));
  EXPECT_FALSE(intact(AuditRowId(2), body));
  EXPECT_FALSE(intact(AuditRowId(1), body + " "));
  EXPECT_FALSE(intact(AuditRowId(1), "{}"));
  EXPECT_FALSE(intact(AuditRowId(1), "not json"));
  for (size_t i = 0; i < body.size(); ++i) {
    std::string edited = body;
    edited[i] = static_cast<char>(edited[i] ^ 1);
    EXPECT_FALSE(intact(AuditRowId(1), edited)) << edited;
  }
}

TEST(Audit, ADamagedLastRowStopsNothing) {
  Harness h;
  Append(h, "A");
  MemStore::Rows rows = h.store->rows();
  rows[{Noun::kAudit, "zzz"}] = "garbage";
  Harness again({}, false, rows);
  Append(again, "B");
  EXPECT_EQ(again.Do([](Engine& e, Turn&) { return e.audit().head().seq; }), 2u);
}

TEST(Audit, PagesAndFilters) {
  Harness h;
  for (int i = 0; i < 600; ++i)
    Append(h, i % 100 == 0 ? "Rare" : "Usual", i % 2 == 0 ? "tnt_a" : "tnt_b");
  AuditQuery query;
  query.limit = 3;
  AuditPage page = Read(*h.store, query);
  EXPECT_EQ(Seqs(page), (std::vector<uint64_t>{600, 599, 598}));
  query.from = page.next;
  EXPECT_EQ(Seqs(Read(*h.store, query)), (std::vector<uint64_t>{597, 596, 595}));

  query = {};
  query.action = "Rare";
  page = Read(*h.store, query);
  EXPECT_EQ(Seqs(page), (std::vector<uint64_t>{501, 401, 301, 201, 101, 1}));
  EXPECT_EQ(page.next, "");

  query = {};
  query.tenant_id = "tnt_b";
  query.oldest_first = true;
  query.limit = 2;
  EXPECT_EQ(Seqs(Read(*h.store, query)), (std::vector<uint64_t>{2, 4}));
  query.tenant_id = "tnt_c";
  EXPECT_TRUE(Read(*h.store, query).records.empty());
  query = {};
  query.actor = "usr_b";
  EXPECT_TRUE(Read(*h.store, query).records.empty());
}

TEST(Audit, RetentionLeavesAChainThatSaysSo) {
  Harness h;
  for (int i = 0; i < 10; ++i) Append(h, "A");
  h.Run([](Engine& e, Turn& t) {
    AuditEntry row = Row("Audit.Forget");
    e.audit().Append(t, row);
    e.audit().Forget(t, 1, 4);
  });
  AuditQuery query;
  query.oldest_first = true;
  EXPECT_EQ(Seqs(Read(*h.store, query)), (std::vector<uint64_t>{5, 6, 7, 8, 9, 10, 11}));
}

TEST(Audit, WhatIsPastItsRetentionGoes) {
  Harness h;
  for (int i = 0; i < 10; ++i) Append(h, "Old");
  h.loop.Advance(absl::Hours(2));
  h.Settle();
  for (int i = 0; i < 3; ++i) Append(h, "New");
  AuditReader reader(*h.store);
  AuditRetention::Options options;
  options.keep = absl::Hours(1);
  options.rows_at_a_time = 4;
  auto retention = std::make_unique<AuditRetention>(*h.core, reader, options);
  h.Run([&](Engine&, Turn& t) { t.AfterCommit([&](const absl::Status&) { retention->Start(); }); });
  // The reader's thread is a real one.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  const auto oldest = [&] {
    AuditQuery query;
    query.oldest_first = true;
    return Seqs(Read(*h.store, query));
  };
  while (oldest().front() != 11 && absl::Now() < deadline) h.Advance(absl::Seconds(1));
  // Three removals of at most four rows, each with its own row.
  EXPECT_EQ(oldest(), (std::vector<uint64_t>{11, 12, 13, 14, 15, 16}));
  AuditQuery query;
  query.action = "Audit.Forget";
  const AuditPage forgotten = Read(*h.store, query);
  ASSERT_EQ(forgotten.records.size(), 3u);
  EXPECT_EQ(forgotten.records[0].entry.target, "10");
  EXPECT_EQ(forgotten.records[2].entry.target, "4");
  h.Run([&](Engine&, Turn& t) { t.AfterCommit([&](const absl::Status&) { retention.reset(); }); });
}

}  // namespace
}  // namespace bunker::controller
