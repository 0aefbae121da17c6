// Sources of randomness. The engine and everything simulated take an Rng&, so that a seed
// replays a run; secrets always come from SystemRng.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace bunker {

class Rng {
 public:
  virtual ~Rng() = default;
  virtual uint64_t Next() = 0;
  // Uniform in [0, bound). REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  std::string Bytes(size_t count);
};

// getrandom(2). Thread-safe.
class SystemRng final : public Rng {
 public:
  uint64_t Next() override;
};

// Repeatable. Not thread-safe.
class SeededRng final : public Rng {
 public:
  explicit SeededRng(uint64_t seed) : engine_(seed) {}
  uint64_t Next() override { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

// `length` characters of [0-9A-Za-z], each drawn uniformly from the system's generator.
std::string RandomBase62(size_t length);

}  // namespace bunker
