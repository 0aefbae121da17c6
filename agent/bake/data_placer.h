// Gives every file its place: data of a layer goes down in segments that are cut where the layer's
// own stream passes each 4 MiB, hidden files counted, and that start on a chunk boundary. So a file
// that one image hides moves nothing outside its own segment, and images on one base share chunks.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/bake/block_writer.h"
#include "agent/bake/data_layout.h"

namespace bunker::agent {

class DataPlacer {
 public:
  explicit DataPlacer(BlockWriter* writer) : writer_(writer) {}

  void BeginLayer();
  // `written`: the data goes to the image; otherwise it only counts.
  void BeginFile(bool written);
  // Ascending offsets; pieces may be of any size. kInvalidArgument where they overlap or go back.
  absl::Status Data(uint64_t offset, std::string_view data);
  // Returns the file's runs.
  absl::StatusOr<std::vector<DataRun>> EndFile();

 private:
  absl::Status CloseBlock();
  absl::Status OpenBlock(uint64_t logical);

  BlockWriter* const writer_;
  uint64_t stream_bytes_ = 0;  // of the layer's file data so far, in whole blocks
  uint64_t segment_ = 0;
  bool align_ = true;
  bool written_ = false;
  uint64_t counted_bytes_ = 0;
  uint64_t next_offset_ = 0;  // of the file; in the middle of a block, that block is open
  bool block_open_ = false;
  std::vector<DataRun> runs_;
};

}  // namespace bunker::agent
