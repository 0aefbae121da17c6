#include "agent/bake/layer_pass.h"

#include <algorithm>
#include <utility>

#include "agent/bake/bake_error.h"
#include "agent/bake/ext4_xattr.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";
constexpr size_t kMaxDroppedShown = 100;

bool HasPrefix(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

// A spelling whose last component is ".." names a directory by where it is not.
bool EndsInDotDot(std::string_view name) {
  while (!name.empty() && name.back() == '/') name.remove_suffix(1);
  return name == ".." || (name.size() > 2 && name.substr(name.size() - 3) == "/..");
}

}  // namespace

LayerPass::LayerPass(const std::vector<LayerInput>& layers, const BakeLimits& limits,
                     const std::vector<std::unique_ptr<LayerSource>>& sources, BlockWriter* writer,
                     PathTable* paths, std::atomic<uint64_t>* consumed_bytes)
    : layers_(layers),
      limits_(limits),
      sources_(sources),
      paths_(paths),
      consumed_bytes_(consumed_bytes),
      placer_(writer),
      members_(layers.size()),
      diff_ids_(layers.size()) {}

std::unique_ptr<LayerStream> LayerPass::Start(size_t index) {
  return std::make_unique<LayerStream>(layers_[index], limits_, sources_[index].get(),
                                       consumed_bytes_, reserve_);
}

absl::Status LayerPass::Run() {
  // The next layer is decompressed ahead, as far as its own buffers go, while this one is merged.
  std::unique_ptr<LayerStream> next = Start(layers_.size() - 1);
  for (size_t index = layers_.size(); index-- > 0;) {
    const std::unique_ptr<LayerStream> stream = std::move(next);
    if (index > 0) next = Start(index - 1);
    RETURN_IF_ERROR(ReadLayer(index, stream.get()));
    diff_ids_[index] = stream->diff_id();
    compressed_bytes_ += stream->compressed_bytes();
    uncompressed_bytes_ += stream->uncompressed_bytes();
  }
  reserve_->Close();
  return absl::OkStatus();
}

absl::Status LayerPass::ReadLayer(size_t index, LayerStream* stream) {
  placer_.BeginLayer();
  return Conclude(index, stream, ReadMembers(index, stream));
}

// A layer that is not what its digest says is reported as that, whatever its members look like.
absl::Status LayerPass::Conclude(size_t index, LayerStream* stream, const absl::Status& read) {
  const std::string layer = absl::StrCat("layer ", index + 1, " of ", layers_.size());
  // Our own failures (a full disk) need no second opinion.
  const std::string reason = ReasonOf(read);
  if (!read.ok() && reason != "LAYER_CORRUPT" && reason != "LAYER_UNSUPPORTED") {
    return Annotate(read, layer);
  }
  const absl::Status verified = stream->Verify(/*abandon=*/!read.ok());
  times_.inflate += stream->times().inflate;
  times_.blob_hash += stream->times().blob_hash;
  times_.diff_hash += stream->times().diff_hash;
  if (!verified.ok()) return Annotate(verified, layer);
  return Annotate(read, layer);
}

absl::Status LayerPass::ReadMembers(size_t index, LayerStream* stream) {
  TarReader reader(stream);
  TarMember read;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&read));
    if (!more) return absl::OkStatus();
    if (++member_count_ > limits_.max_members) {
      return LayerUnsupported(read.name,
                              absl::StrCat("the image has more than ", limits_.max_members,
                                           " members; raise the limit in the agent's "
                                           "configuration if it is really like that"));
    }
    RETURN_IF_ERROR(TakeMember(index, &reader, &read));
  }
}

absl::StatusOr<bool> LayerPass::TakeWhiteout(const TarMember& read,
                                             std::vector<std::string_view>* components,
                                             Member* member) {
  for (size_t i = 0; i + 1 < components->size(); ++i) {
    if (HasPrefix((*components)[i], kWhiteoutPrefix)) {
      return LayerUnsupported(read.name, "a path beneath a whiteout");
    }
  }
  if (components->empty() || !HasPrefix(components->back(), kWhiteoutPrefix)) return false;
  const std::string_view file = components->back();
  components->pop_back();
  if (file == kOpaqueName) {
    member->type = MemberType::kOpaque;
    return true;
  }
  const std::string_view target = file.substr(kWhiteoutPrefix.size());
  if (target.empty() || target == "." || target == "..") {
    return LayerUnsupported(read.name, "not a valid whiteout");
  }
  components->push_back(target);
  member->type = MemberType::kWhiteout;
  return true;
}

absl::Status LayerPass::TakeMember(size_t index, TarReader* reader, TarMember* read) {
  if (EndsInDotDot(read->name)) return LayerUnsupported(read->name, "a path that ends in '..'");
  std::vector<std::string_view> components = CleanComponents(read->name);
  for (std::string_view part : components) {
    if (part.size() > kMaxNameBytes) {
      return LayerUnsupported(read->name, "a name of more than 255 bytes");
    }
  }
  Member member;
  member.type = read->type;
  ASSIGN_OR_RETURN(const bool whiteout, TakeWhiteout(*read, &components, &member));
  member.path = paths_->Intern(components);
  if (!whiteout) {
    member.metadata = read->metadata;
    member.device_major = read->device_major;
    member.device_minor = read->device_minor;
    member.size = read->size;
    member.link = read->link;
    RETURN_IF_ERROR(TakeXattrs(read, &member));
    if (member.type == MemberType::kRegular) {
      const bool hidden = paths_->LooksHidden(member.path, static_cast<int>(index));
      RETURN_IF_ERROR(TakeData(reader, /*written=*/!hidden, &member));
    }
  }
  Mark(index, member);
  members_[index].push_back(std::move(member));
  return absl::OkStatus();
}

absl::Status LayerPass::TakeXattrs(TarMember* read, Member* member) {
  for (auto& [name, value] : read->xattrs) {
    if (HasPrefix(name, "trusted.overlay.") || HasPrefix(name, "user.overlay.") ||
        !KnownXattrNamespace(name)) {
      if (++dropped_.count <= kMaxDroppedShown) {
        dropped_.shown.push_back(absl::StrCat(Printable(read->name), ": ", Printable(name)));
      }
      continue;
    }
    member->xattrs.emplace_back(std::move(name), std::move(value));
  }
  return Annotate(CheckXattrs(&member->xattrs),
                  absl::StrCat("member '", Printable(read->name), "'"));
}

absl::Status LayerPass::TakeData(TarReader* reader, bool written, Member* member) {
  placer_.BeginFile(written);
  RETURN_IF_ERROR(reader->ReadData([&](uint64_t offset, std::string_view data) -> absl::Status {
    const absl::Status placed = placer_.Data(offset, data);
    if (absl::IsInvalidArgument(placed)) {
      return LayerUnsupported(paths_->Text(member->path), ToStd(placed.message()));
    }
    return placed;
  }));
  ASSIGN_OR_RETURN(member->runs, placer_.EndFile());
  member->data_dropped = !written;
  return absl::OkStatus();
}

void LayerPass::Mark(size_t index, const Member& member) {
  const int layer = static_cast<int>(index);
  if (member.type != MemberType::kOpaque) paths_->MarkReplaced(member.path, layer);
  if (member.type != MemberType::kDirectory) paths_->MarkHidesBelow(member.path, layer);
  if (member.type == MemberType::kHardLink) {
    paths_->MarkLinkTarget(paths_->Intern(CleanComponents(member.link)));
  }
}

absl::Status LayerPass::Reread(size_t index, const WantedMembers& wanted) {
  const std::unique_ptr<LayerStream> stream = Start(index);
  placer_.BeginLayer();
  TarReader reader(stream.get());
  TarMember read;
  size_t ordinal = 0;
  for (size_t next : wanted) {
    for (;; ++ordinal) {
      ASSIGN_OR_RETURN(const bool more, reader.Next(&read));
      if (!more) return BakeInternal("a layer changed between two readings");
      if (ordinal == next) break;
    }
    Member& member = members_[index][next];
    if (read.type != MemberType::kRegular) {
      return BakeInternal("a layer changed between two readings");
    }
    RETURN_IF_ERROR(TakeData(&reader, /*written=*/true, &member));
    ++ordinal;
  }
  RETURN_IF_ERROR(Conclude(index, stream.get(), absl::OkStatus()));
  if (stream->diff_id() != diff_ids_[index]) {
    return BakeInternal("a layer changed between two readings");
  }
  return absl::OkStatus();
}

}  // namespace bunker::agent
