#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "agent/scan/rpm_database.h"
#include "agent/scan/rpm_header.h"
#include "tests/support/temp_dir.h"

namespace bunker::agent {
namespace {

std::string BigEndian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

// A header as RPM keeps it: entries, then their data.
class HeaderBuilder {
 public:
  HeaderBuilder& String(uint32_t tag, const std::string& text) {
    return Add(tag, 6, 1, text + '\0');
  }
  HeaderBuilder& Strings(uint32_t tag, const std::vector<std::string>& texts) {
    std::string data;
    for (const std::string& text : texts) data += text + '\0';
    return Add(tag, 8, static_cast<uint32_t>(texts.size()), data);
  }
  HeaderBuilder& Ints(uint32_t tag, const std::vector<uint32_t>& values) {
    std::string data;
    for (const uint32_t value : values) data += BigEndian(value);
    return Add(tag, 4, static_cast<uint32_t>(values.size()), data);
  }
  HeaderBuilder& Add(uint32_t tag, uint32_t type, uint32_t count, const std::string& data) {
    entries_ += BigEndian(tag) + BigEndian(type) + BigEndian(static_cast<uint32_t>(data_.size())) +
                BigEndian(count);
    data_ += data;
    ++count_;
    return *this;
  }
  std::string Build() const {
    return BigEndian(count_) + BigEndian(static_cast<uint32_t>(data_.size())) + entries_ + data_;
  }

 private:
  uint32_t count_ = 0;
  std::string entries_, data_;
};

std::string Bash() {
  return HeaderBuilder()
      .String(1000, "bash")
      .String(1001, "5.1.8")
      .String(1002, "6.el9")
      .Ints(1003, {2})
      .String(1022, "x86_64")
      .String(1044, "bash-5.1.8-6.el9.src.rpm")
      .Ints(1116, {0, 1})
      .Strings(1117, {"bash", "PKG-INFO"})
      .Strings(1118, {"/usr/bin/", "/usr/lib/python3/x.egg-info/"})
      .Build();
}

scan::v1::Inventory Of(PackageList& list) {
  scan::v1::Inventory inventory;
  list.MoveTo(&inventory);
  return inventory;
}

TEST(RpmHeader, IsReadByHand) {
  PackageList list;
  ASSERT_TRUE(ReadRpmHeader(Bash(), &list).ok());
  EXPECT_TRUE(list.Owns("usr/lib/python3/x.egg-info/PKG-INFO"));
  const auto inventory = Of(list);
  ASSERT_EQ(inventory.packages_size(), 1);
  EXPECT_EQ(inventory.packages(0).version(), "2:5.1.8-6.el9");
  EXPECT_EQ(inventory.packages(0).source_name(), "bash");
  EXPECT_EQ(inventory.packages(0).source_version(), "5.1.8-6.el9");
}

TEST(RpmHeader, StaysWithinItsBounds) {
  const std::string whole = Bash();
  for (size_t size = 0; size < whole.size(); ++size) {
    PackageList list;
    EXPECT_FALSE(ReadRpmHeader(whole.substr(0, size), &list).ok()) << size;
  }
  // Any byte wrong: whatever comes of it, nothing outside is read (the sanitizer lane looks).
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char bits : {'\x80', '\xff', '\x01'}) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ bits);
      PackageList list;
      ReadRpmHeader(broken, &list).IgnoreError();
    }
  }
}

std::string DatabaseOf(const std::vector<std::string>& statements, const std::string& blob,
                       const std::string& file) {
  sqlite3* database = nullptr;
  EXPECT_EQ(sqlite3_open(file.c_str(), &database), SQLITE_OK);
  for (const std::string& sql : statements) {
    EXPECT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sql;
  }
  if (!blob.empty()) {
    sqlite3_stmt* insert = nullptr;
    sqlite3_prepare_v2(database, "INSERT INTO Packages (blob) VALUES (?1)", -1, &insert, nullptr);
    sqlite3_bind_blob(insert, 1, blob.data(), static_cast<int>(blob.size()), SQLITE_STATIC);
    EXPECT_EQ(sqlite3_step(insert), SQLITE_DONE);
    sqlite3_finalize(insert);
  }
  sqlite3_close(database);
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

constexpr char kTable[] =
    "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB)";

TEST(RpmDatabase, IsReadFromMemory) {
  test::TempDir dir;
  for (const char* mode : {"PRAGMA journal_mode=DELETE", "PRAGMA journal_mode=WAL"}) {
    PackageList list;
    const absl::Status status = ReadRpmDatabase(
        DatabaseOf({mode, kTable}, Bash(), dir.File(std::string("db") + mode[20])), &list);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(Of(list).packages_size(), 1) << mode;
  }
}

TEST(RpmDatabase, RunsNothingThatTheImageBrought) {
  test::TempDir dir;
  const std::string view = DatabaseOf({"CREATE VIEW Packages AS WITH RECURSIVE c(blob) AS (SELECT "
                                       "1 UNION ALL SELECT blob+1 FROM c) "
                                       "SELECT blob FROM c"},
                                      "", dir.File("view"));
  PackageList list;
  EXPECT_FALSE(ReadRpmDatabase(view, &list).ok());
  EXPECT_FALSE(ReadRpmDatabase("SQLite format 3", &list).ok());
  EXPECT_FALSE(ReadRpmDatabase(std::string(4096, 'x'), &list).ok());
  // A database with bytes wrong here and there: an error or packages, never a crash.
  const std::string whole = DatabaseOf({kTable}, Bash(), dir.File("db"));
  for (size_t at = 0; at < whole.size(); at += 7) {
    std::string broken = whole;
    broken[at] = static_cast<char>(~broken[at]);
    PackageList some;
    ReadRpmDatabase(broken, &some).IgnoreError();
  }
}

}  // namespace
}  // namespace bunker::agent
