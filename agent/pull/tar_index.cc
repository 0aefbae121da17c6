#include "agent/pull/tar_index.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>

#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr uint64_t kBlock = 512;
constexpr uint64_t kMaxMetaBytes = 1u << 20;  // of a pax header or a long name
constexpr int kMaxLinks = 8;

absl::Status Corrupt(const std::string& why) {
  return ReasonError(absl::StatusCode::kDataLoss, "LAYER_CORRUPT",
                     "the archive is damaged (" + why + "): copy or save it again");
}

std::string Field(std::string_view block, size_t offset, size_t length) {
  const std::string_view field = block.substr(offset, length);
  return std::string(field.substr(0, field.find('\0')));
}

// Octal digits, or base 256 where the first bit is set; nullopt where it is neither or too large.
std::optional<uint64_t> Number(std::string_view field) {
  uint64_t value = 0;
  if (!field.empty() && (static_cast<unsigned char>(field[0]) & 0x80)) {
    for (size_t i = 0; i < field.size(); ++i) {
      const unsigned byte = static_cast<unsigned char>(field[i]) & (i == 0 ? 0x7f : 0xff);
      if (value >> 54) return std::nullopt;
      value = value << 8 | byte;
    }
    return value;
  }
  bool digits = false;
  for (const char c : field) {
    if (c >= '0' && c <= '7') {
      value = value * 8 + static_cast<uint64_t>(c - '0');
      digits = true;
    } else if (c == '\0' || (c == ' ' && digits)) {
      break;
    } else if (c != ' ') {
      return std::nullopt;
    }
  }
  return value;
}

bool ChecksumRight(std::string_view block) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i)
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  return Number(block.substr(148, 8)) == sum;
}

// "a/./b/../c" → "a/c"; "" where it leads above the archive's root.
std::string Normal(const std::string& name) {
  std::string normal = std::filesystem::path(name).lexically_normal().string();
  while (!normal.empty() && normal.back() == '/') normal.pop_back();
  if (normal == ".") return "";
  return normal.compare(0, 2, "..") == 0 || normal.compare(0, 1, "/") == 0 ? "" : normal;
}

uint64_t RoundedUp(uint64_t size) {
  return (size + kBlock - 1) / kBlock * kBlock;
}
}  // namespace

struct TarIndex::Header {
  char type = '0';
  std::string name;
  std::string link;
  uint64_t size_bytes = 0;

  static absl::StatusOr<Header> Parse(std::string_view block) {
    if (!ChecksumRight(block)) return Corrupt("a header's checksum is wrong");
    Header header;
    header.type = block[156];
    header.name = Field(block, 0, 100);
    header.link = Field(block, 157, 100);
    if (block.substr(257, 6) == std::string_view("ustar\0", 6)) {
      if (const std::string prefix = Field(block, 345, 155); !prefix.empty())
        header.name = prefix + "/" + header.name;
    }
    const auto size = Number(block.substr(124, 12));
    if (!size || *size > (uint64_t{1} << 50)) return Corrupt("a member's size is impossible");
    header.size_bytes = *size;
    return header;
  }
};

namespace {
// What a pax or GNU header said of the member that follows.
struct Extra {
  std::optional<std::string> name;
  std::optional<std::string> link;
  std::optional<uint64_t> size_bytes;
};

// Records "<length> <key>=<value>\n".
absl::Status ParsePax(std::string_view text, Extra* extra) {
  while (!text.empty() && text.front() != '\0') {
    size_t length = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    const size_t digits = static_cast<size_t>(end - text.data());
    if (error != std::errc() || length <= digits + 1 || length > text.size() ||
        text[digits] != ' ' || text[length - 1] != '\n')
      return Corrupt("a pax header");
    const std::string_view record = text.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return Corrupt("a pax header");
    const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") extra->name = std::string(value);
    if (key == "linkpath") extra->link = std::string(value);
    if (key == "size") {
      uint64_t size = 0;
      const char* const last = value.data() + value.size();
      if (std::from_chars(value.data(), last, size).ptr != last || size > (uint64_t{1} << 50))
        return Corrupt("a pax size");
      extra->size_bytes = size;
    }
    if (key.substr(0, 10) == "GNU.sparse") {
      return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                         "the archive holds a sparse member: pack it without --sparse");
    }
    text.remove_prefix(length);
  }
  return absl::OkStatus();
}
}  // namespace

absl::Status TarIndex::Add(const Header& header, uint64_t content) {
  const std::string name = Normal(header.name);
  if (name.empty()) return absl::OkStatus();
  Member member{.offset = content, .size_bytes = header.size_bytes, .link = ""};
  if (header.type == '1') {
    member.link = Normal(header.link);
  } else if (header.type == '2') {
    const std::string folder = std::filesystem::path(name).parent_path().string();
    member.link = Normal(folder.empty() ? header.link : folder + "/" + header.link);
  } else if (header.type != '0' && header.type != '\0' && header.type != '7') {
    return absl::OkStatus();  // folders, devices: nothing to open
  }
  if ((header.type == '1' || header.type == '2') && member.link.empty()) return absl::OkStatus();
  members_[name] = std::move(member);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TarIndex>> TarIndex::Read(const FileRange& archive,
                                                         const StopFn& stop, size_t max_members) {
  std::unique_ptr<TarIndex> index(new TarIndex(archive));
  Extra extra;
  size_t members = 0;
  for (uint64_t at = 0; at + kBlock <= archive.size_bytes && members < max_members;) {
    if (stop && stop()) {
      return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                         "the read was cancelled because its result is no longer wanted");
    }
    const auto piece = [&](uint64_t offset, uint64_t size) {
      return FileRange{archive.fd, archive.offset + offset, size, false};
    };
    ASSIGN_OR_RETURN(const std::string block, ReadRange(piece(at, kBlock), kBlock));
    if (block.find_first_not_of('\0') == std::string::npos) break;  // the end
    ASSIGN_OR_RETURN(Header header, Header::Parse(block));
    const uint64_t content = at + kBlock;
    const bool meta =
        header.type == 'x' || header.type == 'g' || header.type == 'L' || header.type == 'K';
    if (!meta && extra.size_bytes) header.size_bytes = *extra.size_bytes;
    if (header.size_bytes > archive.size_bytes - content) return Corrupt("it ends too early");
    at = content + RoundedUp(header.size_bytes);
    ++members;
    if (!meta) {
      if (extra.name) header.name = *extra.name;
      if (extra.link) header.link = *extra.link;
      extra = Extra();
      RETURN_IF_ERROR(index->Add(header, content));
      continue;
    }
    if (header.size_bytes > kMaxMetaBytes) return Corrupt("a header of more than 1 MiB");
    ASSIGN_OR_RETURN(std::string text, ReadRange(piece(content, header.size_bytes), kMaxMetaBytes));
    if (header.type == 'x') RETURN_IF_ERROR(ParsePax(text, &extra));
    text.resize(std::min(text.size(), text.find('\0')));
    if (header.type == 'L') extra.name = text;
    if (header.type == 'K') extra.link = text;
  }
  return index;
}

absl::StatusOr<FileRange> TarIndex::Open(const std::string& name) const {
  std::string wanted = name;
  for (int links = 0; links <= kMaxLinks; ++links) {
    const auto it = members_.find(wanted);
    if (it == members_.end()) break;
    if (it->second.link.empty()) {
      return FileRange{archive_.fd, archive_.offset + it->second.offset, it->second.size_bytes,
                       false};
    }
    wanted = it->second.link;
  }
  return ReasonError(absl::StatusCode::kNotFound, "SOURCE_NOT_READABLE",
                     "the archive has no file \"" + name + "\": save the image again");
}

}  // namespace bunker::agent
