#include "agent/pull/tar_digest.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "agent/pull/tar_decoder.h"
#include "common/base/hex.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {
constexpr size_t kTarBlock = 512;

// Follows a tar stream from header to header and looks at names.
class MemberScan {
 public:
  // True once a member has a name that image archives have.
  bool Feed(std::string_view piece) {
    while (!piece.empty() && !found_ && !lost_) {
      const size_t skipped = static_cast<size_t>(std::min<uint64_t>(skip_, piece.size()));
      piece.remove_prefix(skipped);
      skip_ -= skipped;
      const size_t taken = std::min(kTarBlock - block_.size(), piece.size());
      block_.append(piece.substr(0, taken));
      piece.remove_prefix(taken);
      if (block_.size() == kTarBlock) TakeHeader();
    }
    return found_;
  }

 private:
  void TakeHeader() {
    std::string name = block_.substr(0, std::min<size_t>(100, block_.find('\0')));
    uint64_t size = 0;
    for (const char c : block_.substr(124, 12)) {
      if (c >= '0' && c <= '7') size = size * 8 + static_cast<uint64_t>(c - '0');
    }
    lost_ = !IsTarHeader(block_) || static_cast<unsigned char>(block_[124]) >= 0x80;
    while (name.compare(0, 2, "./") == 0) name.erase(0, 2);
    found_ = !lost_ && (name == "manifest.json" || name == "index.json");
    skip_ = (size + kTarBlock - 1) / kTarBlock * kTarBlock;
    block_.clear();
  }

  std::string block_;
  uint64_t skip_ = 0;
  bool found_ = false;
  bool lost_ = false;  // what follows is no header: nothing more to be learnt
};

absl::StatusOr<TarDigests> Digest(const FileRange& range, const StopFn& stop, bool* maybe_image) {
  const FileRange start{.fd = range.fd,
                        .offset = range.offset,
                        .size_bytes = std::min<uint64_t>(range.size_bytes, kTarBlock),
                        .whole_file = false};
  ASSIGN_OR_RETURN(const std::string head, ReadRange(start, kTarBlock));
  TarDigests digests;
  ASSIGN_OR_RETURN(digests.compression, DetectCompression(head));
  const bool scans = maybe_image != nullptr && digests.compression != oci::Compression::kNone;
  Sha256 blob, diff;
  MemberScan scan;
  std::string first;
  const auto on_input = [&](std::string_view piece) {
    blob.Update(piece);
    return absl::OkStatus();
  };
  const auto on_output = [&](std::string_view piece) -> absl::Status {
    if (first.size() < kTarBlock) first.append(piece.substr(0, kTarBlock - first.size()));
    diff.Update(piece);
    if (!scans || !scan.Feed(piece)) return absl::OkStatus();
    *maybe_image = true;
    return absl::AbortedError("enough was read");
  };
  const absl::Status status = DecodeRange(range, digests.compression, stop, on_input, on_output);
  if (scans && *maybe_image) return digests;
  RETURN_IF_ERROR(status);
  if (!IsTarHeader(first)) {
    return ReasonError(absl::StatusCode::kUnimplemented, "LAYER_UNSUPPORTED",
                       "what is compressed in the file is no tar archive: one compression only");
  }
  digests.blob = oci::Digest::FromHex(HexEncode(blob.Finish()));
  digests.diff_id = oci::Digest::FromHex(HexEncode(diff.Finish()));
  return digests;
}
}  // namespace

absl::StatusOr<TarDigests> DigestTar(const FileRange& range, const StopFn& stop) {
  return Digest(range, stop, nullptr);
}

absl::StatusOr<TarDigests> DigestUnlessImage(const FileRange& range, const StopFn& stop,
                                             bool* maybe_image) {
  *maybe_image = false;
  return Digest(range, stop, maybe_image);
}

}  // namespace bunker::agent
