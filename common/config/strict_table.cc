#include "common/config/strict_table.h"

#include <toml++/toml.h>

#include <sstream>
#include <utility>

namespace bunker {

StrictTable::StrictTable(const toml::table& table, std::string name)
    : table_(table), name_(std::move(name)) {}

std::string StrictTable::NameOf(std::string_view key) const {
  return name_.empty() ? std::string(key) : name_ + "." + std::string(key);
}

void StrictTable::Fail(std::string_view key, std::string_view wanted) {
  if (!error_.ok()) return;
  error_ = absl::InvalidArgumentError("config option " + NameOf(key) + " must be " +
                                      std::string(wanted));
}

void StrictTable::Read(std::string_view key, std::string* value) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  if (const auto text = node->value_exact<std::string>()) *value = *text;
  else Fail(key, "a string");
}

void StrictTable::Read(std::string_view key, bool* value) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  if (const auto flag = node->value_exact<bool>()) *value = *flag;
  else Fail(key, "true or false");
}

void StrictTable::Read(std::string_view key, double* value, double min, double max) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  const auto number = node->is_number() ? node->value<double>() : std::nullopt;
  if (number && *number >= min && *number <= max) *value = *number;
  else Fail(key, "a number from " + std::to_string(min) + " to " + std::to_string(max));
}

template <typename Int>
void StrictTable::ReadInteger(std::string_view key, Int* value, Int min, Int max) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  const auto number = node->value_exact<int64_t>();
  if (number && *number >= 0 && static_cast<uint64_t>(*number) >= min &&
      static_cast<uint64_t>(*number) <= max) {
    *value = static_cast<Int>(*number);
  } else {
    Fail(key, "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  }
}

void StrictTable::Read(std::string_view key, uint32_t* value, uint32_t min, uint32_t max) {
  ReadInteger(key, value, min, max);
}
void StrictTable::Read(std::string_view key, uint64_t* value, uint64_t min, uint64_t max) {
  ReadInteger(key, value, min, max);
}

void StrictTable::Read(std::string_view key, std::vector<std::string>* value) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  std::vector<std::string> items;
  if (array != nullptr) {
    for (const toml::node& item : *array) {
      if (const auto text = item.value_exact<std::string>()) items.push_back(*text);
    }
  }
  if (array == nullptr || items.size() != array->size()) Fail(key, "a list of strings");
  else *value = std::move(items);
}

void StrictTable::Read(std::string_view key, std::vector<uint32_t>* value) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  std::vector<uint32_t> items;
  if (array != nullptr) {
    for (const toml::node& item : *array) {
      const auto number = item.value_exact<int64_t>();
      if (number && *number >= 0 && *number <= UINT32_MAX)
        items.push_back(static_cast<uint32_t>(*number));
    }
  }
  if (array == nullptr || items.size() != array->size()) Fail(key, "a list of whole numbers");
  else *value = std::move(items);
}

void StrictTable::Read(std::string_view key, std::map<std::string, std::string>* value) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return;
  const toml::table* table = node->as_table();
  std::map<std::string, std::string> items;
  if (table != nullptr) {
    for (const auto& [name, item] : *table) {
      if (const auto text = item.value_exact<std::string>()) items[std::string(name.str())] = *text;
    }
  }
  if (table == nullptr || items.size() != table->size()) Fail(key, "a table of strings");
  else *value = std::move(items);
}

const toml::table* StrictTable::Table(std::string_view key) {
  known_.emplace(key);
  const toml::node* node = table_.get(key);
  if (node == nullptr) return nullptr;
  if (!node->is_table()) Fail(key, "a table");
  return node->as_table();
}

std::vector<const toml::table*> StrictTable::Tables(std::string_view key) {
  known_.emplace(key);
  std::vector<const toml::table*> tables;
  const toml::node* node = table_.get(key);
  if (node == nullptr) return tables;
  const toml::array* array = node->as_array();
  if (array == nullptr) {
    Fail(key, "an array of tables");
    return tables;
  }
  for (const toml::node& item : *array) {
    if (item.is_table()) tables.push_back(item.as_table());
    else Fail(key, "an array of tables");
  }
  return tables;
}

absl::Status StrictTable::Finish() const {
  if (!error_.ok()) return error_;
  for (const auto& [key, node] : table_) {
    if (known_.find(key.str()) == known_.end()) {
      return absl::InvalidArgumentError("unknown config option " + NameOf(key.str()) +
                                        ": remove it, or correct its spelling");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseToml(std::string_view text, std::string_view origin, toml::table* table) {
#if TOML_EXCEPTIONS
  try {
    *table = toml::parse(text, origin);
    return absl::OkStatus();
  } catch (const toml::parse_error& error) {
    std::ostringstream message;
    message << origin << ":" << error.source().begin.line << ": " << error.description();
    return absl::InvalidArgumentError(message.str());
  }
#else
  toml::parse_result result = toml::parse(text, origin);
  if (result) {
    *table = std::move(result).table();
    return absl::OkStatus();
  }
  std::ostringstream message;
  message << origin << ":" << result.error().source().begin.line << ": "
          << result.error().description();
  return absl::InvalidArgumentError(message.str());
#endif
}

}  // namespace bunker
