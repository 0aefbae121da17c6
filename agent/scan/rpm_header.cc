#include "agent/scan/rpm_header.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bunker::agent {
namespace {

using scan::v1::Package;

constexpr size_t kPrefixBytes = 8;  // number of entries, bytes of data
constexpr size_t kEntryBytes = 16;
constexpr uint32_t kMaxEntries = 64 << 10;
constexpr uint32_t kMaxStrings = 1'000'000;

enum Tag : uint32_t {
  kName = 1000,
  kVersion = 1001,
  kRelease = 1002,
  kEpoch = 1003,
  kArch = 1022,
  kSourceRpm = 1044,
  kDirIndexes = 1116,
  kBaseNames = 1117,
  kDirNames = 1118,
};
enum Type : uint32_t { kInt32 = 4, kString = 6, kStringArray = 8, kI18nString = 9 };

uint32_t BigEndian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

class Header {
 public:
  // False where the blob's own numbers don't fit its size.
  bool Parse(std::string_view blob) {
    if (blob.size() < kPrefixBytes) return false;
    const uint32_t count = BigEndian(blob, 0);
    const uint32_t data_bytes = BigEndian(blob, 4);
    if (count > kMaxEntries || blob.size() < kPrefixBytes + uint64_t{count} * kEntryBytes)
      return false;
    data_ = blob.substr(kPrefixBytes + size_t{count} * kEntryBytes);
    if (data_.size() < data_bytes) return false;
    data_ = data_.substr(0, data_bytes);
    for (uint32_t i = 0; i < count; ++i) {
      const size_t at = kPrefixBytes + size_t{i} * kEntryBytes;
      entries_[BigEndian(blob, at)] = {BigEndian(blob, at + 4), BigEndian(blob, at + 8),
                                       BigEndian(blob, at + 12)};
    }
    return true;
  }

  std::string String(Tag tag) const {
    const auto it = entries_.find(tag);
    if (it == entries_.end()) return "";
    const uint32_t type = it->second.type;
    if (type != kString && type != kI18nString && type != kStringArray) return "";
    size_t at = it->second.offset;
    return std::string(TakeString(&at).value_or(""));
  }

  std::optional<uint32_t> Int(Tag tag) const {
    const std::vector<uint32_t> values = Ints(tag, 1);
    return values.empty() ? std::nullopt : std::optional<uint32_t>(values[0]);
  }

  std::vector<uint32_t> Ints(Tag tag, uint32_t most) const {
    std::vector<uint32_t> values;
    const auto it = entries_.find(tag);
    if (it == entries_.end() || it->second.type != kInt32) return values;
    const uint32_t count = std::min(it->second.count, most);
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t at = it->second.offset + i * 4;
      if (at + 4 > data_.size()) break;
      values.push_back(BigEndian(data_, static_cast<size_t>(at)));
    }
    return values;
  }

  std::vector<std::string_view> Strings(Tag tag) const {
    std::vector<std::string_view> values;
    const auto it = entries_.find(tag);
    if (it == entries_.end() || it->second.type != kStringArray) return values;
    size_t at = it->second.offset;
    for (uint32_t i = 0; i < std::min(it->second.count, kMaxStrings); ++i) {
      const std::optional<std::string_view> one = TakeString(&at);
      if (!one) break;
      values.push_back(*one);
    }
    return values;
  }

 private:
  struct Entry {
    uint32_t type;
    uint32_t offset;
    uint32_t count;
  };

  std::optional<std::string_view> TakeString(size_t* at) const {
    if (*at >= data_.size()) return std::nullopt;
    const size_t end = data_.find('\0', *at);
    if (end == data_.npos) return std::nullopt;
    const std::string_view text = data_.substr(*at, end - *at);
    *at = end + 1;
    return text;
  }

  std::string_view data_;
  std::map<uint32_t, Entry> entries_;
};

void OwnPaths(const Header& header, PackageList* list) {
  const std::vector<std::string_view> names = header.Strings(kBaseNames);
  const std::vector<std::string_view> folders = header.Strings(kDirNames);
  const std::vector<uint32_t> indexes = header.Ints(kDirIndexes, kMaxStrings);
  for (size_t i = 0; i < names.size() && i < indexes.size(); ++i) {
    if (indexes[i] >= folders.size()) continue;
    list->Own(std::string(folders[indexes[i]]) + std::string(names[i]));
  }
}

// "glibc-2.34-60.el9.src.rpm" → name, "2.34-60.el9".
void SetSource(const std::string& file, Package* package) {
  constexpr std::string_view kEnding = ".src.rpm";
  if (file.size() <= kEnding.size() ||
      file.compare(file.size() - kEnding.size(), kEnding.size(), kEnding) != 0) {
    return;
  }
  const std::string stem = file.substr(0, file.size() - kEnding.size());
  const size_t release = stem.rfind('-');
  if (release == stem.npos || release == 0) return;
  const size_t version = stem.rfind('-', release - 1);
  if (version == stem.npos || version == 0) return;
  package->set_source_name(stem.substr(0, version));
  package->set_source_version(stem.substr(version + 1));
}

}  // namespace

absl::Status ReadRpmHeader(std::string_view blob, PackageList* list) {
  Header header;
  if (!header.Parse(blob))
    return absl::InvalidArgumentError("a record of the RPM database is no package header");
  Package package;
  package.set_kind(Package::RPM);
  package.set_name(header.String(kName));
  if (package.name() == "gpg-pubkey") return absl::OkStatus();
  const std::string version = header.String(kVersion);
  const std::string release = header.String(kRelease);
  if (package.name().empty() || version.empty() || release.empty())
    return absl::InvalidArgumentError("a package of the RPM database has no name and version");
  const uint32_t epoch = header.Int(kEpoch).value_or(0);
  package.set_version((epoch == 0 ? "" : std::to_string(epoch) + ":") + version + "-" + release);
  package.set_arch(header.String(kArch));
  SetSource(header.String(kSourceRpm), &package);
  list->Add(std::move(package));
  OwnPaths(header, list);
  return absl::OkStatus();
}

}  // namespace bunker::agent
