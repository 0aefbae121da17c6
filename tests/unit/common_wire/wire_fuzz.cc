// libFuzzer's entry to everything that reads a guest's or a host's bytes. With BUNKER_FUZZ_MAIN it
// is a program of its own that mutates seeded input for a second: the smoke test of every build.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/wire/session.h"

namespace {

using bunker::wire::Frame;
using bunker::wire::GuestSession;
using bunker::wire::HostSession;

// The first byte says into which pieces the rest is cut.
template <typename Session>
uint64_t Run(Session& session, std::string_view bytes, size_t step) {
  uint64_t events = 0;
  while (!bytes.empty()) {
    bytes.remove_prefix(session.parser().Feed(bytes.substr(0, step)));
    Frame frame;
    while (session.Next(&frame) != Session::Event::kNeedMore) {
      // Touch the payload: a view outside the buffer must not go unseen.
      for (const char c : frame.payload) events += static_cast<uint8_t>(c);
      ++events;
    }
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = 1 + data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  HostSession host(0x1122334455667788);
  GuestSession guest;
  static volatile uint64_t sink = 0;
  sink = sink + Run(host, bytes, step) + Run(guest, bytes, step);
  return 0;
}

#ifdef BUNKER_FUZZ_MAIN
#include <chrono>
#include <cstdio>
#include <random>

int main() {
  using bunker::wire::EncodeFrame;
  using bunker::wire::FrameType;
  constexpr uint64_t kEpoch = 0x1122334455667788;
  const std::string seed = EncodeFrame(kEpoch, 0, FrameType::kHello, "") +
                           EncodeFrame(kEpoch, 0, FrameType::kHelloAck, "hello") +
                           EncodeFrame(kEpoch, 3, FrameType::kStdout, std::string(100, 'x')) +
                           EncodeFrame(kEpoch, 3, FrameType::kCredit, "\x08\x01");
  std::mt19937 rng(5);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    std::string input = seed;
    for (uint32_t edits = rng() % 8; edits > 0; --edits) {
      const size_t at = rng() % input.size();
      switch (rng() % 3) {
        case 0:
          input[at] = static_cast<char>(rng());
          break;
        case 1:
          input.erase(at, 1 + rng() % 40);
          break;
        default:
          input.insert(at, input.substr(rng() % (at + 1), rng() % 60));
          break;
      }
      if (input.empty()) input = seed;
    }
    input.insert(input.begin(), static_cast<char>(rng()));
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  }
  std::printf("%llu inputs\n", static_cast<unsigned long long>(runs));
  return runs > 100 ? 0 : 1;
}
#endif
