#include "common/wire/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <nmmintrin.h>
#endif

namespace bunker::wire {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected
constexpr int kSlices = 8;
using Tables = std::array<std::array<uint32_t, 256>, kSlices>;

constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? kPolynomial : 0);
    tables[0][byte] = value;
  }
  for (int slice = 1; slice < kSlices; ++slice) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t previous = tables[slice - 1][byte];
      tables[slice][byte] = (previous >> 8) ^ tables[0][previous & 0xff];
    }
  }
  return tables;
}
constexpr Tables kTables = MakeTables();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t Crc32cHardware(const uint8_t* bytes, size_t size,
                                                          uint32_t crc) {
  uint64_t wide = crc;
  for (; size >= 8; bytes += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes, sizeof(word));
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; size > 0; ++bytes, --size) crc = _mm_crc32_u8(crc, *bytes);
  return crc;
}

// QEMU's emulator goes through the instruction's bits one by one, at a third of the tables' speed.
// It names itself where hypervisors do: CPUID leaf 0x40000000.
bool IsEmulated() {
  constexpr unsigned kHypervisorBit = 1U << 31;
  unsigned eax = 0, name[3] = {}, ecx = 0, unused = 0;
  const bool has_facts = __get_cpuid(1, &eax, &unused, &ecx, &unused) != 0;
  if (!has_facts || (ecx & kHypervisorBit) == 0) return false;
  __cpuid(0x40000000, eax, name[0], name[1], name[2]);
  return std::memcmp(name, "TCGTCGTCGTCG", sizeof(name)) == 0;
}
#endif

uint32_t Sliced(const uint8_t* bytes, size_t size, uint32_t crc) {
  for (; size >= 8; bytes += 8, size -= 8) {
    const uint32_t low =
        crc ^ (static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
               static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24);
    crc = kTables[7][low & 0xff] ^ kTables[6][(low >> 8) & 0xff] ^ kTables[5][(low >> 16) & 0xff] ^
          kTables[4][low >> 24] ^ kTables[3][bytes[4]] ^ kTables[2][bytes[5]] ^
          kTables[1][bytes[6]] ^ kTables[0][bytes[7]];
  }
  for (; size > 0; ++bytes, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *bytes) & 0xff];
  return crc;
}

}  // namespace

uint32_t Crc32cPortable(const void* data, size_t size, uint32_t seed) {
  return ~Sliced(static_cast<const uint8_t*>(data), size, ~seed);
}

uint32_t Crc32c(const void* data, size_t size, uint32_t seed) {
#if defined(__x86_64__)
  static const bool hardware = __builtin_cpu_supports("sse4.2") && !IsEmulated();
  if (hardware) return ~Crc32cHardware(static_cast<const uint8_t*>(data), size, ~seed);
#endif
  return Crc32cPortable(data, size, seed);
}

}  // namespace bunker::wire
