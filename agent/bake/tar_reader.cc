#include "agent/bake/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "agent/bake/bake_error.h"
#include "agent/bake/posix_acl.h"
#include "common/base/converters.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

// One member's pax and long-name headers fit in this many chunks (libarchive takes 1 MiB of each
// kind), with the chunk before and room to spare; the stream has twice as many.
constexpr size_t kMaxHeaderChunks = 8;
static_assert(kMaxHeaderChunks + 2 * kWakeChunks <= kStreamChunks);
constexpr uint64_t kMaxPaxBytes = 2 << 20;
// ext4 with 4 KiB blocks addresses 2^32 of them in a file.
constexpr uint64_t kMaxFileBytes = (1ull << 44) - kBlockBytes;
constexpr size_t kMaxLinkBytes = 4095;
constexpr std::string_view kKnownTypes("\00001234567S", 10);
constexpr char kHeadersTooLarge[] = "a member's headers are larger than 4 MiB";

std::string_view ArchiveError(archive* reader) {
  const char* text = archive_error_string(reader);
  return text ? text : "unknown error";
}

bool StartsWith(std::string_view data, std::string_view magic) {
  return data.substr(0, magic.size()) == magic;
}

// A second compression under the first is never unwrapped.
const char* NestedCompression(std::string_view data) {
  if (StartsWith(data, "\x1f\x8b")) return "gzip";
  if (StartsWith(data, "\x28\xb5\x2f\xfd")) return "zstd";
  if (StartsWith(data, std::string_view("\xfd"
                                        "7zXZ\0",
                                        6)))
    return "xz";
  if (StartsWith(data, "BZh")) return "bzip2";
  return nullptr;
}

}  // namespace

TarReader::TarReader(LayerStream* stream)
    : stream_(stream), archive_(archive_read_new(), &archive_read_free) {
  BUNKER_CHECK(archive_ != nullptr);
}

TarReader::~TarReader() = default;

ssize_t TarReader::ReadCallback(archive*, void* self_pointer, const void** buffer) {
  auto* self = static_cast<TarReader*>(self_pointer);
  const size_t keep = self->in_header_ ? kMaxHeaderChunks - 1 : 1;
  while (self->window_.size() > keep) self->window_.pop_front();
  ChunkPtr chunk = self->stream_->Next();
  if (!chunk) return 0;
  *buffer = chunk->data.get();
  const size_t size = chunk->size;
  self->window_.push_back(Window{self->position_, std::move(chunk)});
  self->position_ += size;
  return static_cast<ssize_t>(size);
}

absl::Status TarReader::Open() {
  archive* reader = archive_.get();
  if (archive_read_support_format_tar(reader) != ARCHIVE_OK) return BakeInternal("no tar reader");
  opened_ = true;
  // It looks at the first block already here.
  if (archive_read_open(reader, this, nullptr, &TarReader::ReadCallback, nullptr) == ARCHIVE_OK) {
    return absl::OkStatus();
  }
  if (archive_errno(reader) == ENOMEM) return OutOfMemory();
  if (!window_.empty()) {
    if (const char* kind = NestedCompression(window_.front().chunk->view())) {
      return LayerRefused(absl::StrCat("the layer is compressed twice (", kind,
                                       " inside); compress it once, as its media type says"));
    }
  }
  return LayerRefused("the layer is not a tar stream");
}

absl::StatusOr<bool> TarReader::ReadHeader() {
  if (!opened_) {
    const absl::Status opened = Open();
    if (position_ == 0) return false;  // nothing at all: an empty layer
    RETURN_IF_ERROR(opened);
  }
  in_header_ = true;
  const int result = archive_read_next_header(archive_.get(), &entry_);
  in_header_ = false;
  if (result == ARCHIVE_EOF) return false;
  if (result == ARCHIVE_OK) return true;
  const std::string_view error = ArchiveError(archive_.get());
  if (result == ARCHIVE_WARN) {
    // The bytes of such a name are right, and are taken from the raw record.
    if (error.find("can't be converted") != std::string_view::npos) return true;
    const char* name = archive_entry_pathname(entry_);
    return LayerUnsupported(name ? name : "?", error);
  }
  if (archive_errno(archive_.get()) == ENOMEM) return OutOfMemory();
  return LayerCorrupt(absl::StrCat("the tar stream is damaged: ", ToAbsl(error)));
}

// An archive that begins with its end mark must be all zeros. Otherwise it is something else (a
// disk image begins like that), which would pass for an empty layer.
absl::Status TarReader::CheckEmpty() {
  const auto zeros = [](std::string_view data) {
    return data.find_first_not_of('\0') == std::string_view::npos;
  };
  if (window_.empty() || window_.front().start != 0 ||
      !zeros(window_.front().chunk->view().substr(0, kTarBlockBytes))) {
    return absl::OkStatus();
  }
  bool clean = std::all_of(window_.begin(), window_.end(),
                           [&](const Window& window) { return zeros(window.chunk->view()); });
  while (clean) {
    const ChunkPtr chunk = stream_->Next();
    if (!chunk) return absl::OkStatus();
    clean = zeros(chunk->view());
  }
  return LayerRefused("the layer is not a tar stream");
}

absl::StatusOr<bool> TarReader::Next(TarMember* member) {
  if (entry_ != nullptr) {
    // Read, not skipped by libarchive, so that the header window stays short.
    RETURN_IF_ERROR(ReadData([](uint64_t, std::string_view) { return absl::OkStatus(); }));
  }
  ASSIGN_OR_RETURN(const bool more, ReadHeader());
  if (!more) {
    entry_ = nullptr;
    if (empty_) RETURN_IF_ERROR(CheckEmpty());
    return false;
  }
  empty_ = false;
  if (archive_filter_count(archive_.get()) != 1) return BakeInternal("a filter was slipped in");
  RETURN_IF_ERROR(Convert(member));
  return true;
}

absl::Status TarReader::ReadData(
    const std::function<absl::Status(uint64_t offset, std::string_view data)>& sink) {
  uint64_t stored_bytes = 0;
  for (;;) {
    const void* data = nullptr;
    size_t size = 0;
    la_int64_t offset = 0;
    const int result = archive_read_data_block(archive_.get(), &data, &size, &offset);
    if (result == ARCHIVE_EOF) break;
    if (result != ARCHIVE_OK) {
      const char* name = archive_entry_pathname(entry_);
      return LayerCorrupt(absl::StrCat("member '", Printable(name ? name : "?"),
                                       "': ", ToAbsl(ArchiveError(archive_.get()))));
    }
    if (size == 0) continue;
    if (offset < 0) return LayerCorrupt("a sparse file's map is damaged");
    // Some readers pad each piece to whole tar blocks, others take the next one from where this one
    // ends: one archive would be two different files. (The stream comes in whole tar blocks.)
    if (stored_bytes % kTarBlockBytes != 0) {
      const char* name = archive_entry_pathname(entry_);
      return LayerUnsupported(name ? name : "?",
                              "a sparse file with pieces that are not multiples of 512 bytes");
    }
    stored_bytes += size;
    RETURN_IF_ERROR(sink(static_cast<uint64_t>(offset),
                         std::string_view(static_cast<const char*>(data), size)));
  }
  // libarchive goes on where the map's last piece ends, others where the size does.
  const std::optional<uint64_t> expected = std::exchange(stored_bytes_, std::nullopt);
  if (!expected || *expected == stored_bytes) return absl::OkStatus();
  const char* name = archive_entry_pathname(entry_);
  return LayerUnsupported(name ? name : "?", "a sparse file whose map and size do not agree");
}

bool TarReader::CopyRaw(uint64_t position, size_t size, std::string* out) const {
  out->clear();
  for (const Window& window : window_) {
    const uint64_t end = window.start + window.chunk->size;
    if (position >= end || size == out->size()) continue;
    if (position < window.start) return false;
    const std::string_view rest = window.chunk->view().substr(position - window.start);
    const std::string_view part = rest.substr(0, size - out->size());
    out->append(part);
    position += part.size();
  }
  return out->size() == size;
}

// Walks the headers that precede the member's own one.
absl::Status TarReader::ReadRaw(RawHeaders* headers) const {
  uint64_t position = static_cast<uint64_t>(archive_read_header_position(archive_.get()));
  std::string block;
  std::string payload;
  std::string seen;
  for (;;) {
    if (!CopyRaw(position, kTarBlockBytes, &block)) return LayerRefused(kHeadersTooLarge);
    headers->type = block[156];
    if (headers->type != 'g' && seen.find(headers->type) != std::string::npos) {
      headers->ambiguous = "two headers of one kind precede it";
    }
    seen += headers->type;
    uint64_t size = 0;
    if (std::string_view("xXgLK").find(headers->type) == std::string_view::npos) {
      if (const char* why = Ambiguity(block)) headers->ambiguous = why;
      if (headers->sparse && headers->type != '0' && headers->type != '\0') {
        headers->ambiguous = "records of a sparse file on something else";
      }
      if (headers->type >= '2' && headers->type <= '6' && headers->size.value_or("0") != "0") {
        headers->ambiguous = kSizeWithoutData;
      }
      if ((headers->sparse || headers->type == 'S') &&
          !ReadStoredBytes(position, block, headers)) {
        headers->ambiguous = "a sparse file with a size or a map that is none";
      }
      break;
    }
    if (!OctalField(std::string_view(block).substr(124, 12), &size) || size > kMaxPaxBytes) break;
    const uint64_t padded = (size + kTarBlockBytes - 1) / kTarBlockBytes * kTarBlockBytes;
    if (!CopyRaw(position + kTarBlockBytes, padded, &payload)) {
      return LayerRefused(kHeadersTooLarge);
    }
    const std::string_view used = std::string_view(payload).substr(0, size);
    if (headers->type == 'x' || headers->type == 'X') {
      ParsePaxPayload(used, headers);
    } else if (headers->type == 'g') {
      if (!HasCommentsOnly(used)) headers->ambiguous = "global pax records other than comments";
    } else if (used.find('\0') == std::string_view::npos && size < padded &&
               payload[size] != '\0') {
      headers->ambiguous = "a long name that goes on beyond its size";
    }
    position += kTarBlockBytes + padded;
  }
  return absl::OkStatus();
}

bool TarReader::ReadStoredBytes(uint64_t position, std::string_view block,
                                RawHeaders* headers) const {
  uint64_t size = 0;
  const bool known = headers->size ? absl::SimpleAtoi(ToAbsl(*headers->size), &size)
                                   : OctalField(block.substr(124, 12), &size);
  if (!known) return false;
  uint64_t map_bytes = 0;
  if (headers->map_in_data) {
    const std::optional<uint64_t> found = SparseMapBytes(position + kTarBlockBytes);
    if (!found || *found > size) return false;
    map_bytes = *found;
  }
  headers->stored_bytes = size - map_bytes;
  return true;
}

// A count, then twice as many numbers, each on a line of its own; zeros fill the last block.
std::optional<uint64_t> TarReader::SparseMapBytes(uint64_t position) const {
  std::string block;
  uint64_t count = 0;
  uint64_t lines = 0;
  for (uint64_t bytes = kTarBlockBytes; CopyRaw(position, kTarBlockBytes, &block);
       bytes += kTarBlockBytes, position += kTarBlockBytes) {
    for (const char c : block) {
      if (c == '\n') {
        if (++lines == 2 * count + 1) return bytes;
      } else if (c < '0' || c > '9') {
        return std::nullopt;
      } else if (lines == 0) {
        // More than the header window holds is refused there; here it must only not wrap.
        count = std::min<uint64_t>(count * 10 + static_cast<uint64_t>(c - '0'), kMaxPaxBytes);
      }
    }
  }
  return std::nullopt;
}

absl::Status TarReader::Convert(TarMember* member) {
  *member = TarMember();
  RawHeaders raw;
  RETURN_IF_ERROR(ReadRaw(&raw));
  stored_bytes_ = raw.stored_bytes;
  RETURN_IF_ERROR(ConvertNames(member, raw));
  if (raw.ambiguous != nullptr) {
    return LayerUnsupported(member->name,
                            absl::StrCat("programs read it differently: ", raw.ambiguous));
  }
  RETURN_IF_ERROR(ConvertType(member, raw.type));
  return ConvertMetadata(member, raw);
}

absl::Status TarReader::ConvertNames(TarMember* member, const RawHeaders& raw) {
  const char* name = archive_entry_pathname(entry_);
  member->name = raw.path && !raw.path->empty() ? *raw.path : std::string(name ? name : "");
  if (member->name.empty()) return LayerUnsupported("", "has no name");
  if (raw.has_nul) return LayerUnsupported(member->name, "a pax record holds a NUL byte");
  if (member->name.size() > kMaxPathBytes) {
    return LayerUnsupported(member->name, "the path is longer than 4096 bytes");
  }
  const char* hard = archive_entry_hardlink(entry_);
  const char* soft = archive_entry_symlink(entry_);
  if (hard || soft) {
    member->link = raw.link && !raw.link->empty() ? *raw.link : std::string(hard ? hard : soft);
    if (member->link.empty() || member->link.size() > kMaxLinkBytes) {
      return LayerUnsupported(member->name, "the link's target is empty or over 4095 bytes");
    }
  }
  return absl::OkStatus();
}

absl::Status TarReader::ConvertType(TarMember* member, char raw_type) {
  if (kKnownTypes.find(raw_type) == std::string_view::npos) {
    return LayerUnsupported(member->name, "a type of member that is not known");
  }
  if ((raw_type == '0' || raw_type == '7') && archive_entry_filetype(entry_) == AE_IFDIR) {
    return LayerUnsupported(member->name, "a file whose name ends like a directory's");
  }
  if (raw_type == '1' && !archive_entry_hardlink(entry_)) {
    return LayerUnsupported(member->name, "a hard link without a target");
  }
  const int64_t size = archive_entry_size_is_set(entry_) ? archive_entry_size(entry_) : 0;
  if (archive_entry_hardlink(entry_)) {
    if (size > 0) return LayerUnsupported(member->name, "a hard link that carries data");
    member->type = MemberType::kHardLink;
    return absl::OkStatus();
  }
  switch (archive_entry_filetype(entry_)) {
    case AE_IFREG:
      if (size < 0 || static_cast<uint64_t>(size) > kMaxFileBytes) {
        return LayerUnsupported(member->name, "the file is larger than ext4 can hold (16 TiB)");
      }
      member->type = MemberType::kRegular;
      member->size = static_cast<uint64_t>(size);
      return absl::OkStatus();
    case AE_IFDIR:
      member->type = MemberType::kDirectory;
      return absl::OkStatus();
    case AE_IFLNK:
      if (member->link.empty()) return LayerUnsupported(member->name, "a link without a target");
      member->type = MemberType::kSymlink;
      return absl::OkStatus();
    case AE_IFIFO:
      member->type = MemberType::kFifo;
      return absl::OkStatus();
    case AE_IFCHR:
      member->type = MemberType::kCharDevice;
      break;
    case AE_IFBLK:
      member->type = MemberType::kBlockDevice;
      break;
    default:
      return LayerUnsupported(member->name, "a type that an image cannot hold");
  }
  const uint64_t major = archive_entry_rdevmajor(entry_);
  const uint64_t minor = archive_entry_rdevminor(entry_);
  if (major > 0xfff || minor > 0xfffff) {
    return LayerUnsupported(member->name, "the device number is beyond 4095:1048575");
  }
  member->device_major = static_cast<uint32_t>(major);
  member->device_minor = static_cast<uint32_t>(minor);
  return absl::OkStatus();
}

absl::Status TarReader::ConvertMetadata(TarMember* member, const RawHeaders& raw) {
  FileMetadata& metadata = member->metadata;
  metadata.mode = static_cast<uint16_t>(archive_entry_perm(entry_) & 07777);
  const int64_t uid = archive_entry_uid(entry_);
  const int64_t gid = archive_entry_gid(entry_);
  constexpr int64_t kMaxId = 0xfffffffe;
  if (uid < 0 || gid < 0 || uid > kMaxId || gid > kMaxId) {
    return LayerUnsupported(member->name, "the owner is outside 0..4294967294");
  }
  metadata.uid = static_cast<uint32_t>(uid);
  metadata.gid = static_cast<uint32_t>(gid);
  metadata.mtime_seconds = archive_entry_mtime(entry_);
  metadata.mtime_nanoseconds = static_cast<uint32_t>(archive_entry_mtime_nsec(entry_));
  if (raw.mtime &&
      !ParsePaxTime(*raw.mtime, &metadata.mtime_seconds, &metadata.mtime_nanoseconds)) {
    return LayerUnsupported(member->name, "the modification time is not a number");
  }
  constexpr int64_t kMinTime = -(1ll << 31);
  constexpr int64_t kMaxTime = (3ll << 32) + (1ll << 31) - 1;
  if (metadata.mtime_seconds < kMinTime || metadata.mtime_seconds > kMaxTime) {
    return LayerUnsupported(member->name, "the modification time is outside the years 1901-2446");
  }
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  archive_entry_xattr_reset(entry_);
  while (archive_entry_xattr_next(entry_, &name, &value, &size) == ARCHIVE_OK) {
    if (name == nullptr) continue;
    member->xattrs.emplace_back(name, std::string(static_cast<const char*>(value), size));
  }
  // It hands them out last one first; of equal names the stream's last one counts.
  std::reverse(member->xattrs.begin(), member->xattrs.end());
  return ConvertAcls(member);
}

// ACLs that came as text records, not as the xattr that holds them in a file system.
absl::Status TarReader::ConvertAcls(TarMember* member) {
  const int types = archive_entry_acl_types(entry_);
  if (types == 0) return absl::OkStatus();
  const std::pair<int, const char*> kinds[] = {{ARCHIVE_ENTRY_ACL_TYPE_ACCESS, kAclAccessName},
                                               {ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, kAclDefaultName}};
  if (types & ARCHIVE_ENTRY_ACL_TYPE_NFS4) {
    return LayerUnsupported(member->name, "an NFSv4 access control list");
  }
  for (const auto& [kind, name] : kinds) {
    const std::string_view xattr_name = name;
    if (!(types & kind)) continue;
    const bool known = std::any_of(member->xattrs.begin(), member->xattrs.end(),
                                   [&](const auto& x) { return x.first == xattr_name; });
    if (known) continue;
    std::vector<AclEntry> entries;
    archive_entry_acl_reset(entry_, kind);
    int type = 0, permissions = 0, tag = 0, qualifier = 0;
    const char* who = nullptr;
    while (archive_entry_acl_next(entry_, kind, &type, &permissions, &tag, &qualifier, &who) ==
           ARCHIVE_OK) {
      entries.push_back(AclEntry{AclTagFromArchive(tag), static_cast<uint16_t>(permissions & 7),
                                 static_cast<uint32_t>(qualifier)});
      if (qualifier < 0 && (tag == ARCHIVE_ENTRY_ACL_USER || tag == ARCHIVE_ENTRY_ACL_GROUP)) {
        return LayerUnsupported(member->name,
                                "an access control list that names its users "
                                "without their numbers");
      }
    }
    member->xattrs.emplace_back(xattr_name, EncodeKernelAcl(std::move(entries)));
  }
  return absl::OkStatus();
}

}  // namespace bunker::agent
