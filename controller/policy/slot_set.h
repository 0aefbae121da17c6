// A set of small numbers as bits: the workers that pass one test of placement.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bunker::controller {

class SlotSet {
 public:
  static constexpr size_t kBits = 64;

  // True: it was not in the set.
  bool Add(size_t slot) {
    const size_t word = slot / kBits;
    if (word >= words_.size()) words_.resize(word + 1);
    const uint64_t bit = uint64_t{1} << (slot % kBits);
    if ((words_[word] & bit) != 0) return false;
    words_[word] |= bit;
    ++size_;
    return true;
  }

  // True: it was in the set.
  bool Remove(size_t slot) {
    if (!Has(slot)) return false;
    words_[slot / kBits] &= ~(uint64_t{1} << (slot % kBits));
    --size_;
    return true;
  }

  bool Has(size_t slot) const { return (Word(slot / kBits) >> (slot % kBits) & 1) != 0; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Slots 64·word … 64·word + 63, the lowest in the lowest bit.
  uint64_t Word(size_t word) const { return word < words_.size() ? words_[word] : 0; }

  bool operator==(const SlotSet& other) const {
    if (size_ != other.size_) return false;
    for (size_t word = 0; word < words_.size(); ++word) {
      if (words_[word] != other.Word(word)) return false;
    }
    return true;
  }

 private:
  std::vector<uint64_t> words_;
  size_t size_ = 0;
};

}  // namespace bunker::controller
