// Hand-made tar streams, well-formed or not: every byte is the test's choice.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bunker::agent::test {

struct TarEntry {
  std::string name = {};
  char type = '0';
  std::string link = {};
  std::string data = {};
  uint32_t mode = 0644;
  uint64_t uid = 0;
  uint64_t gid = 0;
  int64_t mtime = 1'600'000'000;
  uint32_t major = 0;
  uint32_t minor = 0;
  std::vector<std::pair<std::string, std::string>> pax = {};  // records put before the member
};

class TarBuilder {
 public:
  TarBuilder& Add(const TarEntry& entry) {
    std::vector<std::pair<std::string, std::string>> pax = entry.pax;
    if (entry.name.size() > 100) pax.emplace_back("path", entry.name);
    if (entry.link.size() > 100) pax.emplace_back("linkpath", entry.link);
    if (entry.uid > 07777777) pax.emplace_back("uid", std::to_string(entry.uid));
    if (entry.gid > 07777777) pax.emplace_back("gid", std::to_string(entry.gid));
    if (entry.mtime < 0) pax.emplace_back("mtime", std::to_string(entry.mtime));
    if (!pax.empty()) {
      std::string records;
      for (const auto& [key, value] : pax) records += Record(key, value);
      Header(TarEntry{.name = "PaxHeaders/x", .type = 'x'}, records.size());
      Payload(records);
    }
    Header(entry, entry.data.size());
    Payload(entry.data);
    return *this;
  }
  TarBuilder& File(const std::string& name, const std::string& data) {
    return Add({.name = name, .data = data});
  }
  TarBuilder& Dir(const std::string& name) {
    return Add({.name = name, .type = '5', .mode = 0755});
  }
  TarBuilder& Symlink(const std::string& name, const std::string& target) {
    return Add({.name = name, .type = '2', .link = target, .mode = 0777});
  }
  TarBuilder& Link(const std::string& name, const std::string& target) {
    return Add({.name = name, .type = '1', .link = target});
  }
  TarBuilder& Raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  // A header alone, with a size field that need not be true.
  TarBuilder& Header(const TarEntry& entry, uint64_t size) {
    char block[512] = {};
    entry.name.copy(block, 100);
    Octal(block + 100, 8, entry.mode);
    Octal(block + 108, 8, entry.uid > 07777777 ? 0 : entry.uid);
    Octal(block + 116, 8, entry.gid > 07777777 ? 0 : entry.gid);
    Octal(block + 124, 12, size);
    Octal(block + 136, 12, entry.mtime < 0 ? 0 : static_cast<uint64_t>(entry.mtime));
    block[156] = entry.type;
    entry.link.copy(block + 157, 100);
    std::memcpy(block + 257,
                "ustar\0"
                "00",
                8);
    Octal(block + 329, 8, entry.major);
    Octal(block + 337, 8, entry.minor);
    Seal(block);
    bytes_.append(block, sizeof(block));
    return *this;
  }
  static void Seal(char* block) {
    std::memset(block + 148, ' ', 8);
    uint32_t sum = 0;
    for (int i = 0; i < 512; ++i) sum += static_cast<unsigned char>(block[i]);
    Octal(block + 148, 7, sum);
  }
  TarBuilder& Payload(std::string_view data) {
    bytes_ += data;
    bytes_.resize((bytes_.size() + 511) / 512 * 512);
    return *this;
  }
  std::string Finish() const { return bytes_ + std::string(1024, '\0'); }
  const std::string& bytes() const { return bytes_; }

  static std::string Record(const std::string& key, const std::string& value) {
    size_t length = key.size() + value.size() + 3;
    while (std::to_string(length).size() + key.size() + value.size() + 3 != length) {
      length = std::to_string(length).size() + key.size() + value.size() + 3;
    }
    return std::to_string(length) + " " + key + "=" + value + "\n";
  }

 private:
  static void Octal(char* field, int width, uint64_t value) {
    for (int i = width - 2; i >= 0; --i, value /= 8) {
      field[i] = static_cast<char>('0' + value % 8);
    }
    field[width - 1] = '\0';
  }

  std::string bytes_;
};

}  // namespace bunker::agent::test
