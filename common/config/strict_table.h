// Reads one TOML table strictly: every value is asked for by name and type, and what nobody asked
// for is an error. The first error is kept; later reads are no-ops, so that a loader is a flat
// list of reads with one check at the end.
//
// Not thread-safe. The table passed in must outlive the reader.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace toml {
inline namespace v3 { class table; }
}  // namespace toml

namespace bunker {

class StrictTable {
 public:
  // `name` is the table's own in errors ("vm"); "" for the root.
  StrictTable(const toml::table& table, std::string name);

  // Each leaves `*value` alone where the key is absent.
  void Read(std::string_view key, std::string* value);
  void Read(std::string_view key, bool* value);
  void Read(std::string_view key, double* value, double min, double max);
  void Read(std::string_view key, uint32_t* value, uint32_t min, uint32_t max);
  void Read(std::string_view key, uint64_t* value, uint64_t min, uint64_t max);
  void Read(std::string_view key, std::vector<std::string>* value);
  void Read(std::string_view key, std::vector<uint32_t>* value);
  void Read(std::string_view key, std::map<std::string, std::string>* value);

  // The sub-table, or nullptr where absent.
  const toml::table* Table(std::string_view key);
  // The tables of an array of tables; empty where absent.
  std::vector<const toml::table*> Tables(std::string_view key);

  // The first error, or the unknown keys.
  absl::Status Finish() const;

 private:
  std::string NameOf(std::string_view key) const;
  void Fail(std::string_view key, std::string_view wanted);
  template <typename Int>
  void ReadInteger(std::string_view key, Int* value, Int min, Int max);

  const toml::table& table_;
  const std::string name_;
  std::set<std::string, std::less<>> known_;
  absl::Status error_;
};

// Parses a whole TOML text into `*table` and returns its parse error in words. The caller owns it.
absl::Status ParseToml(std::string_view text, std::string_view origin, toml::table* table);

}  // namespace bunker
