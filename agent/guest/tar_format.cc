#include "agent/guest/tar_format.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <optional>

namespace bunker::guest {
namespace {

constexpr size_t kBlock = 512;
constexpr uint64_t kMaxTextBytes = 1 << 20;  // of a pax header, or a long name
constexpr uint64_t kMaxOctal11 = 077777777777;
constexpr uint64_t kMaxOctal7 = 07777777;
constexpr int kMaxHeadersInARow = 32;  // that are about the next entry

struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char mtime[12];
  char checksum[8];
  char type;
  char link[100];
  char magic[8];
  char user[32];
  char group[32];
  char dev_major[8];
  char dev_minor[8];
  char prefix[155];
  char rest[12];
};
static_assert(sizeof(Header) == kBlock);

template <size_t N>
void PutOctal(char (&field)[N], uint64_t value) {
  std::snprintf(field, N, "%0*llo", static_cast<int>(N - 1),
                static_cast<unsigned long long>(value));
}

template <size_t N>
std::string TextOf(const char (&field)[N]) {
  return std::string(field, strnlen(field, N));
}

uint32_t ChecksumOf(const Header& header) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&header);
  constexpr size_t kAt = offsetof(Header, checksum);
  uint32_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) sum += i >= kAt && i < kAt + 8 ? ' ' : bytes[i];
  return sum;
}

template <size_t N>
std::optional<uint64_t> NumberOf(const char (&field)[N]) {
  const auto first = static_cast<unsigned char>(field[0]);
  uint64_t value = 0;
  if (first & 0x80) {  // GNU: base 256; a negative one is of no use here
    if (first != 0x80) return std::nullopt;
    for (size_t i = 1; i < N; ++i) {
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(field[i]);
    }
    return value;
  }
  size_t i = 0;
  while (i < N && field[i] == ' ') ++i;
  for (; i < N && field[i] >= '0' && field[i] <= '7'; ++i) {
    value = value << 3 | static_cast<uint64_t>(field[i] - '0');
  }
  if (i < N && field[i] != ' ' && field[i] != '\0') return std::nullopt;
  return value;
}

std::optional<uint64_t> Decimal(std::string_view text) {
  uint64_t value = 0;
  if (text.empty() || text.size() > 18) return std::nullopt;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

std::string PaxRecord(std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;  // a space, '=', a line end
  size_t size = rest + 1;
  while (std::to_string(size).size() + rest != size) ++size;
  return std::to_string(size) + " " + std::string(key) + "=" + std::string(value) + "\n";
}

Header BareHeader(char type, std::string_view name, uint64_t size) {
  Header header;
  std::memset(&header, 0, sizeof(header));
  std::memcpy(header.name, name.data(), std::min(name.size(), sizeof(header.name)));
  PutOctal(header.mode, 0644);
  PutOctal(header.uid, 0);
  PutOctal(header.gid, 0);
  PutOctal(header.size, size);
  PutOctal(header.mtime, 0);
  header.type = type;
  std::memcpy(header.magic, "ustar\00000", 8);
  return header;
}

std::string Sealed(Header header) {
  std::snprintf(header.checksum, sizeof(header.checksum), "%06o", ChecksumOf(header));
  header.checksum[7] = ' ';
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header));
}

char TypeFlag(TarEntry::Type type) {
  switch (type) {
    case TarEntry::Type::kFolder:
      return '5';
    case TarEntry::Type::kSymlink:
      return '2';
    case TarEntry::Type::kHardLink:
      return '1';
    default:
      return '0';
  }
}

}  // namespace

std::string TarPadding(uint64_t size) {
  return std::string((kBlock - size % kBlock) % kBlock, '\0');
}

std::string TarEnd() {
  return std::string(2 * kBlock, '\0');
}

std::string TarHeader(const TarEntry& entry) {
  std::string path = entry.path;
  if (entry.type == TarEntry::Type::kFolder && !path.empty() && path.back() != '/') path += '/';
  const uint64_t size = entry.type == TarEntry::Type::kFile ? entry.size : 0;
  const auto modified = static_cast<uint64_t>(std::max<int64_t>(entry.modified_s, 0));
  std::string pax;
  if (path.size() > sizeof(Header::name)) pax += PaxRecord("path", path);
  if (entry.link.size() > sizeof(Header::link)) pax += PaxRecord("linkpath", entry.link);
  if (size > kMaxOctal11) pax += PaxRecord("size", std::to_string(size));
  if (entry.uid > kMaxOctal7) pax += PaxRecord("uid", std::to_string(entry.uid));
  if (entry.gid > kMaxOctal7) pax += PaxRecord("gid", std::to_string(entry.gid));
  std::string out;
  if (!pax.empty()) {
    out = Sealed(BareHeader('x', "PaxHeaders/next", pax.size())) + pax + TarPadding(pax.size());
  }
  Header header = BareHeader(TypeFlag(entry.type), path, std::min(size, kMaxOctal11));
  PutOctal(header.mode, entry.mode & 07777);
  PutOctal(header.uid, std::min<uint64_t>(entry.uid, kMaxOctal7));
  PutOctal(header.gid, std::min<uint64_t>(entry.gid, kMaxOctal7));
  PutOctal(header.mtime, std::min(modified, kMaxOctal11));
  std::memcpy(header.link, entry.link.data(), std::min(entry.link.size(), sizeof(header.link)));
  return out + Sealed(header);
}

bool CleanMemberPath(std::string_view path, std::string* clean) {
  clean->clear();
  if (path.find('\0') != std::string_view::npos) return false;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, slash);
    path.remove_prefix(std::min(slash + 1, path.size()));
    if (part.empty() || part == ".") continue;
    if (part == "..") return false;
    if (!clean->empty()) *clean += '/';
    *clean += part;
  }
  return true;
}

// What headers before an entry say of it.
struct TarReader::Overrides {
  std::string path, link;
  std::optional<uint64_t> size, uid, gid, mtime;

  // "17 path=a/long/name\n" and so on.
  bool TakePax(std::string_view records) {
    while (!records.empty()) {
      const size_t space = records.find(' ');
      if (space == std::string_view::npos) return false;
      const auto length = Decimal(records.substr(0, space));
      if (!length || *length <= space + 2 || *length > records.size()) return false;
      std::string_view record = records.substr(space + 1, *length - space - 1);
      if (record.back() != '\n') return false;
      record.remove_suffix(1);
      const size_t equals = record.find('=');
      if (equals == std::string_view::npos) return false;
      if (!TakeRecord(record.substr(0, equals), record.substr(equals + 1))) return false;
      records.remove_prefix(*length);
    }
    return true;
  }

 private:
  bool TakeRecord(std::string_view key, std::string_view value) {
    if (key == "path") path = value;
    if (key == "linkpath") link = value;
    if (key == "size") return (size = Decimal(value)).has_value();
    if (key == "uid") return (uid = Decimal(value)).has_value();
    if (key == "gid") return (gid = Decimal(value)).has_value();
    if (key == "mtime") mtime = Decimal(value.substr(0, value.find('.')));
    return key.substr(0, 11) != "GNU.sparse.";  // such data is no file as it stands
  }
};

namespace {

// False: it is no file, folder or link.
bool TypeOf(const Header& header, TarEntry::Type* type) {
  switch (header.type) {
    case '0':
    case '\0':
    case '7':
      *type = TarEntry::Type::kFile;
      return true;
    case '1':
      *type = TarEntry::Type::kHardLink;
      return true;
    case '2':
      *type = TarEntry::Type::kSymlink;
      return true;
    case '5':
      *type = TarEntry::Type::kFolder;
      return true;
    default:
      return false;
  }
}

template <typename Overrides>
bool Describe(const Header& header, const Overrides& overrides, uint64_t size, TarEntry* entry) {
  *entry = TarEntry();
  if (!TypeOf(header, &entry->type)) return false;
  entry->path = TextOf(header.name);
  const bool is_posix = std::memcmp(header.magic, "ustar\0", 6) == 0;
  if (is_posix && header.prefix[0] != '\0') {
    entry->path = TextOf(header.prefix) + "/" + entry->path;
  }
  entry->link = TextOf(header.link);
  if (!overrides.path.empty()) entry->path = overrides.path;
  if (!overrides.link.empty()) entry->link = overrides.link;
  if (header.type == '\0' && !entry->path.empty() && entry->path.back() == '/') {
    entry->type = TarEntry::Type::kFolder;  // as tar had it before POSIX
  }
  entry->size = overrides.size.value_or(size);
  entry->mode = static_cast<uint32_t>(NumberOf(header.mode).value_or(0644) & 07777);
  entry->uid = static_cast<uint32_t>(overrides.uid.value_or(NumberOf(header.uid).value_or(0)));
  entry->gid = static_cast<uint32_t>(overrides.gid.value_or(NumberOf(header.gid).value_or(0)));
  entry->modified_s =
      static_cast<int64_t>(overrides.mtime.value_or(NumberOf(header.mtime).value_or(0)));
  return true;
}

}  // namespace

bool TarReader::Fill() {
  if (held_.empty()) held_ = source_();
  return !held_.empty();
}

bool TarReader::ReadExact(char* out, size_t size) {
  while (size > 0) {
    if (!Fill()) return false;
    const size_t step = std::min(size, held_.size());
    std::memcpy(out, held_.data(), step);
    held_.remove_prefix(step);
    out += step;
    size -= step;
  }
  return true;
}

bool TarReader::ReadText(uint64_t size, std::string* text) {
  if (size > kMaxTextBytes) return false;
  text->resize(size);
  char padding[kBlock];
  return ReadExact(text->data(), size) && ReadExact(padding, (kBlock - size % kBlock) % kBlock);
}

bool TarReader::SkipData() {
  uint64_t left = data_left_ + padding_left_;
  data_left_ = padding_left_ = 0;
  while (left > 0) {
    if (!Fill()) return false;
    const auto step = static_cast<size_t>(std::min<uint64_t>(left, held_.size()));
    held_.remove_prefix(step);
    left -= step;
  }
  return true;
}

TarReader::Result TarReader::Broken(std::string message) {
  error_ = std::move(message);
  return Result::kBroken;
}

std::string_view TarReader::ReadData() {
  if (data_left_ == 0 || broken()) return {};
  if (!Fill()) {
    Broken("the archive ends in the middle of a file");
    return {};
  }
  const auto step = static_cast<size_t>(std::min<uint64_t>(data_left_, held_.size()));
  const std::string_view piece = held_.substr(0, step);
  held_.remove_prefix(step);
  data_left_ -= step;
  return piece;
}

TarReader::Result TarReader::Next(TarEntry* entry) {
  if (broken()) return Result::kBroken;
  if (ended_) return Result::kEnd;
  if (!SkipData()) return Broken("the archive ends in the middle of a file");
  Overrides overrides;
  for (int row = 0; row < kMaxHeadersInARow; ++row) {
    Header header;
    if (!ReadExact(reinterpret_cast<char*>(&header), sizeof(header))) {
      return Broken("the archive ends without its last blocks");
    }
    const auto* bytes = reinterpret_cast<const char*>(&header);
    if (std::all_of(bytes, bytes + kBlock, [](char c) { return c == 0; })) {
      ended_ = true;
      return Result::kEnd;
    }
    const auto checksum = NumberOf(header.checksum);
    const auto size = NumberOf(header.size);
    if (!checksum || *checksum != ChecksumOf(header) || !size) {
      return Broken("this is no tar, or a damaged one");
    }
    std::string text;
    if (header.type == 'x' || header.type == 'L' || header.type == 'K') {
      if (!ReadText(*size, &text)) return Broken("a long name in the archive is damaged");
      if (header.type == 'x' && !overrides.TakePax(text)) {
        return Broken("a pax header in the archive is damaged, or of a sparse file");
      }
      if (header.type == 'L') overrides.path = text.c_str();
      if (header.type == 'K') overrides.link = text.c_str();
      continue;
    }
    if (header.type == 'g') {
      if (!ReadText(*size, &text)) return Broken("a global header in the archive is damaged");
      continue;
    }
    if (!Describe(header, overrides, *size, entry)) {
      return Broken("the archive holds a device, a pipe, or something else that is no file");
    }
    if (entry->type != TarEntry::Type::kFile) {
      entry->size = 0;  // whatever it says: no data follows
      return Result::kEntry;
    }
    data_left_ = entry->size;
    padding_left_ = (kBlock - entry->size % kBlock) % kBlock;
    return Result::kEntry;
  }
  return Broken("too many headers before one file of the archive");
}

}  // namespace bunker::guest
