// The store's schema, by numbered migrations. A released one never changes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace bunker::controller {

inline constexpr int32_t kStoreApplicationId = 0x626e6b72;  // "bnkr"

inline constexpr std::string_view kStoreMigrations[] = {
    R"sql(
      CREATE TABLE meta (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE partners (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE tenants (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE users (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE api_keys (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE join_tokens (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE workers (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE images (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE availability_groups (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE TABLE cache_entries (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE bunkers (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE idempotency_records (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
    )sql",
    R"sql(
      CREATE TABLE user_groups (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE TABLE quota_profiles (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE TABLE quota_assignments (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE TABLE registry_credentials (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE TABLE scan_reports (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE TABLE scan_documents (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL);
      CREATE TABLE audit (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)
        WITHOUT ROWID;
      CREATE INDEX audit_of_tenant ON audit
        (CASE WHEN json_valid(body) THEN json_extract(body, '$.tenant_id') END, id);
    )sql",
    R"sql(
      CREATE TABLE snapshots (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
    )sql",
    R"sql(
      CREATE TABLE bridges (id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
    )sql",
};

}  // namespace bunker::controller
