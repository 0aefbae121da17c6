// Gives every file its place, so that images on one base share chunks: within its chunk, a file
// lies where it would lie if nothing of its layer were hidden. Hidden files leave no more than the
// hole that this takes, less than a chunk for each run of them; whole chunks of hidden data are
// left out.
//
// Holes cost address space, no disk, and even that is bounded: a layer starts with the right to one
// chunk of them and earns more by the data that it writes. What can't be paid for follows directly,
// and finds its place again with a later file.
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
  // Moves on to where the file belongs.
  void Align();
  void Count(uint64_t offset, size_t size);
  absl::Status CloseBlock();
  absl::Status OpenBlock(uint64_t logical);

  BlockWriter* const writer_;
  uint64_t stream_blocks_ = 0;  // of the layer's data so far, hidden or not
  uint64_t slack_ = 0;          // what may be spent on holes, in 1/kBlocksPerSlack of a block
  bool placed_ = false;         // the file has its first block
  bool written_ = false;
  uint64_t file_blocks_ = 0;    // with data in them, so far
  uint64_t counted_until_ = 0;  // the file's block up to which these are counted
  uint64_t next_offset_ = 0;    // of the file; in the middle of a block, that block is open
  bool block_open_ = false;
  std::vector<DataRun> runs_;
};

}  // namespace bunker::agent
