// The members of one layer's tar stream: libarchive's tar reader, fed with bytes that are already
// decompressed, and what it can't tell read from the raw pax records (names with NUL bytes or in
// no charset, times before 1970 with a fraction).
//
// Not thread-safe. setlocale(LC_ALL, "C.UTF-8") must have run, or names come back empty.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/layer_stream.h"
#include "agent/bake/member.h"
#include "agent/bake/tar_headers.h"

struct archive;
struct archive_entry;

namespace bunker::agent {

class TarReader {
 public:
  // `stream` must outlive the reader.
  explicit TarReader(LayerStream* stream);
  ~TarReader();

  // False at the end of the archive. Whatever of the member before was not read is skipped.
  // Errors: LAYER_UNSUPPORTED, LAYER_CORRUPT.
  absl::StatusOr<bool> Next(TarMember* member);

  // Hands the current member's data to `sink` piece by piece, offsets ascending; what lies between
  // two pieces is a hole.
  absl::Status ReadData(
      const std::function<absl::Status(uint64_t offset, std::string_view data)>& sink);

 private:
  struct Window {
    uint64_t start;
    ChunkPtr chunk;
  };
  static ssize_t ReadCallback(archive* reader, void* self, const void** buffer);
  absl::Status Open();
  absl::StatusOr<bool> ReadHeader();
  absl::Status CheckEmpty();
  absl::Status Convert(TarMember* member);
  absl::Status ConvertNames(TarMember* member, const RawHeaders& raw);
  absl::Status ConvertType(TarMember* member, char raw_type);
  absl::Status ConvertMetadata(TarMember* member, const RawHeaders& raw);
  absl::Status ConvertAcls(TarMember* member);
  absl::Status ReadRaw(RawHeaders* headers) const;
  bool ReadStoredBytes(uint64_t position, std::string_view block, RawHeaders* headers) const;
  std::optional<uint64_t> SparseMapBytes(uint64_t position) const;
  bool CopyRaw(uint64_t position, size_t size, std::string* out) const;

  LayerStream* const stream_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
  archive_entry* entry_ = nullptr;
  std::deque<Window> window_;  // what was handed out last, for the raw records
  bool in_header_ = false;
  bool opened_ = false;
  bool empty_ = true;  // no member so far
  std::optional<uint64_t> stored_bytes_;  // what the data must come to, where that is to be checked
  uint64_t position_ = 0;
};

}  // namespace bunker::agent
