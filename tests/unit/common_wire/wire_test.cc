// Frames, their parser, the handshake and credit: every split, every flip, garbage, stale bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "common/wire/crc32c.h"
#include "common/wire/frame.h"
#include "common/wire/session.h"

namespace bunker::wire {
namespace {

struct Got {
  uint64_t epoch;
  uint32_t stream;
  FrameType type;
  std::string payload;
  bool operator==(const Got&) const = default;
};

// Feeds `bytes` in pieces of at most `step` and collects the frames.
std::vector<Got> ParseAll(FrameParser& parser, std::string_view bytes, size_t step) {
  std::vector<Got> frames;
  while (!bytes.empty()) {
    const size_t taken = parser.Feed(bytes.substr(0, step));
    bytes.remove_prefix(taken);
    Frame frame;
    for (;;) {
      const auto result = parser.Next(&frame);
      if (result == FrameParser::Result::kNeedMore) break;
      if (result == FrameParser::Result::kFrame) {
        frames.push_back({frame.epoch, frame.stream, frame.type, std::string(frame.payload)});
      }
    }
  }
  return frames;
}

std::string RandomBytes(std::mt19937& rng, size_t size) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(rng());
  return bytes;
}

TEST(Crc32c, KnownVectorsAndBothPathsAgree) {
  EXPECT_EQ(Crc32c("123456789", 9), 0xe3069283u);  // RFC 3720 B.4 and its like
  EXPECT_EQ(Crc32c(std::string(32, '\0').data(), 32), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff').data(), 32), 0x62a8ab43u);
  EXPECT_EQ(Crc32c("", 0), 0u);
  std::mt19937 rng(1);
  for (size_t size = 0; size < 100; ++size) {
    const std::string bytes = RandomBytes(rng, size);
    EXPECT_EQ(Crc32c(bytes.data(), size), Crc32cPortable(bytes.data(), size));
    const size_t half = size / 2;
    EXPECT_EQ(Crc32c(bytes.data() + half, size - half, Crc32c(bytes.data(), half)),
              Crc32c(bytes.data(), size));
  }
}

TEST(Frame, EverySplitPosition) {
  std::string bytes = EncodeFrame(7, 1, FrameType::kStdout, "hello");
  bytes += EncodeFrame(7, 2, FrameType::kStdinClose, "");
  bytes += EncodeFrame(~uint64_t{0}, ~uint32_t{0}, FrameType::kCredit, std::string(300, 'B'));
  const std::vector<Got> expected = {
      {7, 1, FrameType::kStdout, "hello"},
      {7, 2, FrameType::kStdinClose, ""},
      {~uint64_t{0}, ~uint32_t{0}, FrameType::kCredit, std::string(300, 'B')}};
  for (size_t at = 0; at <= bytes.size(); ++at) {
    FrameParser parser;
    std::vector<Got> frames = ParseAll(parser, std::string_view(bytes).substr(0, at), bytes.size());
    for (Got& got : ParseAll(parser, std::string_view(bytes).substr(at), bytes.size())) {
      frames.push_back(got);
    }
    ASSERT_EQ(frames, expected) << "split at " << at;
    ASSERT_EQ(parser.garbage_bytes(), 0u);
  }
  for (const size_t step : {1, 2, 3, 31, 32, 33}) {
    FrameParser parser;
    EXPECT_EQ(ParseAll(parser, bytes, step), expected) << "steps of " << step;
  }
}

TEST(Frame, EveryBitFlipIsSeenAndTheNextFrameSurvives) {
  const std::string bad = EncodeFrame(7, 1, FrameType::kStdout, "payload");
  const std::string good = EncodeFrame(7, 2, FrameType::kStdout, "next");
  for (size_t bit = 0; bit < bad.size() * 8; ++bit) {
    std::string bytes = bad;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    bytes += good;
    FrameParser parser;
    const std::vector<Got> frames = ParseAll(parser, bytes, 16);
    ASSERT_EQ(frames.size(), 1u) << "bit " << bit;
    EXPECT_EQ(frames[0].payload, "next");
    EXPECT_EQ(parser.garbage_bytes(), bad.size());
  }
}

TEST(Frame, LargestPayloadPassesAndALargerClaimIsNotWaitedFor) {
  FrameParser parser;
  const std::string largest(kMaxPayloadBytes, 'x');
  EXPECT_EQ(ParseAll(parser, EncodeFrame(1, 1, FrameType::kStdout, largest), 70'000).size(), 1u);
  // A header that claims more, with a right checksum of its own.
  std::string liar = EncodeFrame(1, 1, FrameType::kStdout, "");
  liar[4] = 1;
  liar[6] = 4;  // 256 KiB + 1
  const uint32_t crc = Crc32c(liar.data(), 28);
  for (int i = 0; i < 4; ++i) liar[28 + i] = static_cast<char>(crc >> (8 * i));
  const std::vector<Got> frames =
      ParseAll(parser, liar + EncodeFrame(1, 2, FrameType::kPing, ""), 1000);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].stream, 2u);
}

TEST(Frame, PayloadIsNeverReadAsFrames) {
  // A payload that is itself a perfect frame, in a frame whose checksum is broken.
  const std::string inner = EncodeFrame(7, 99, FrameType::kExecStart, "root please");
  std::string outer = EncodeFrame(7, 1, FrameType::kStdin, inner);
  outer.back() = static_cast<char>(outer.back() ^ 1);
  FrameParser parser;
  const std::vector<Got> frames =
      ParseAll(parser, outer + EncodeFrame(7, 2, FrameType::kPing, ""), 5);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].stream, 2u);
}

TEST(Frame, GarbageOfAnyKindEndsAtTheNextFrame) {
  std::mt19937 rng(2);
  const std::string good = EncodeFrame(7, 2, FrameType::kStdout, "found");
  for (int round = 0; round < 300; ++round) {
    std::string bytes = RandomBytes(rng, rng() % 200);
    if (round % 3 == 0) bytes += std::string(rng() % 100, 'B');    // the magic's first byte
    if (round % 5 == 0) bytes += std::string("BKF1BKF1BKF1BKF1");  // the magic itself
    bytes += good;
    FrameParser parser;
    const std::vector<Got> frames = ParseAll(parser, bytes, 1 + rng() % 64);
    ASSERT_EQ(frames.size(), 1u) << "round " << round;
    EXPECT_EQ(frames[0].payload, "found");
  }
}

// What a guest makes of a byte stream: epochs of new sessions, and frames with their epochs.
struct GuestLog {
  std::vector<uint64_t> sessions;
  std::vector<Got> frames;
};
GuestLog RunGuest(GuestSession& guest, std::string_view bytes, size_t step = 4096) {
  GuestLog log;
  while (!bytes.empty()) {
    bytes.remove_prefix(guest.parser().Feed(bytes.substr(0, step)));
    Frame frame;
    for (;;) {
      const auto event = guest.Next(&frame);
      if (event == GuestSession::Event::kNeedMore) break;
      if (event == GuestSession::Event::kNewSession) log.sessions.push_back(guest.epoch());
      if (event == GuestSession::Event::kFrame) {
        log.frames.push_back({frame.epoch, frame.stream, frame.type, std::string(frame.payload)});
      }
    }
  }
  return log;
}

TEST(Session, AHostThatDiedAnywhereInAFrameDoesNotHarmTheNext) {
  // The tenant's stdin is made of frames that would start a session and a command as root.
  const std::string forged = EncodeFrame(666, 0, FrameType::kHello, "") +
                             EncodeFrame(666, 5, FrameType::kExecStart, "root");
  std::string stdin_data;
  while (stdin_data.size() < 1000) stdin_data += forged;
  const std::string frame = EncodeFrame(1, 3, FrameType::kStdin, stdin_data);
  const std::string next = HostGreeting(2) + EncodeFrame(2, 1, FrameType::kPing, "after");
  for (size_t cut = 0; cut <= frame.size(); ++cut) {
    GuestSession guest;
    ASSERT_EQ(RunGuest(guest, HostGreeting(1)).sessions, std::vector<uint64_t>{1});
    GuestLog log = RunGuest(guest, frame.substr(0, cut) + next, 70'000);
    ASSERT_EQ(log.sessions, std::vector<uint64_t>{2}) << "cut at " << cut;
    ASSERT_EQ(log.frames.back().payload, "after") << "cut at " << cut;
    ASSERT_EQ(log.frames.size(), cut == frame.size() ? 2u : 1u);
  }
}

TEST(Session, TheLargestFrameCutAfterItsHeader) {
  const std::string frame =
      EncodeFrame(1, 3, FrameType::kStdin, std::string(kMaxPayloadBytes, 'B'));
  for (const size_t cut : {kHeaderBytes, kHeaderBytes + 1, frame.size() - 1}) {
    GuestSession guest;
    RunGuest(guest, HostGreeting(1));
    EXPECT_EQ(RunGuest(guest, frame.substr(0, cut) + HostGreeting(2)).sessions,
              std::vector<uint64_t>{2});
  }
}

TEST(Session, FramesOfAnEarlierEpochAreDropped) {
  GuestSession guest;
  RunGuest(guest, HostGreeting(1) + HostGreeting(2));
  EXPECT_TRUE(RunGuest(guest, EncodeFrame(1, 1, FrameType::kKill, "")).frames.empty());
  EXPECT_EQ(RunGuest(guest, EncodeFrame(2, 1, FrameType::kKill, "")).frames.size(), 1u);
}

TEST(Session, NothingBeforeTheFirstHelloCounts) {
  GuestSession guest;
  EXPECT_TRUE(RunGuest(guest, EncodeFrame(0, 1, FrameType::kExecStart, "x")).frames.empty());
}

TEST(Session, HostFindsItsAckBehindAnyStaleBytes) {
  std::mt19937 rng(3);
  const std::string ack = EncodeFrame(42, 0, FrameType::kHelloAck, "hi");
  for (int round = 0; round < 200; ++round) {
    std::string stale;
    if (round % 2 == 0) stale += RandomBytes(rng, rng() % 300);
    // The rest of an old frame: forged frames, one of which claims to be very long.
    const std::string forged = EncodeFrame(41, 0, FrameType::kHelloAck, "forged") +
                               EncodeFrame(41, 1, FrameType::kStdout, std::string(200'000, 'x'))
                                   .substr(0, 32 + rng() % 500);
    stale += forged.substr(rng() % forged.size());
    HostSession host(42);
    const std::string all = stale + ack + EncodeFrame(42, 1, FrameType::kPong, "p");
    std::string_view bytes = all;
    std::vector<HostSession::Event> events;
    while (!bytes.empty()) {
      bytes.remove_prefix(host.parser().Feed(bytes.substr(0, 1 + rng() % 999)));
      Frame frame;
      for (;;) {
        const auto event = host.Next(&frame);
        if (event == HostSession::Event::kNeedMore) break;
        events.push_back(event);
        if (event == HostSession::Event::kViolation) break;
      }
    }
    ASSERT_EQ(events, (std::vector{HostSession::Event::kReady, HostSession::Event::kFrame}))
        << "round " << round;
  }
}

TEST(Session, AfterTheHandshakeAnythingWrongIsAViolation) {
  const std::string ack = EncodeFrame(42, 0, FrameType::kHelloAck, "");
  std::string broken = EncodeFrame(42, 1, FrameType::kStdout, "abc");
  broken.back() = 'x';
  for (const std::string& wrong :
       {std::string("garbage"), EncodeFrame(41, 1, FrameType::kStdout, "old"), broken}) {
    HostSession host(42);
    host.parser().Feed(ack + wrong);
    Frame frame;
    EXPECT_EQ(host.Next(&frame), HostSession::Event::kReady);
    EXPECT_EQ(host.Next(&frame), HostSession::Event::kViolation);
  }
}

TEST(Credit, NeverMoreThanAWindow) {
  SendCredit sender;
  ReceiveCredit receiver;
  std::mt19937 rng(4);
  uint64_t sent = 0, consumed = 0;
  for (int step = 0; step < 10'000; ++step) {
    const auto bytes = static_cast<uint32_t>(rng() % 40'000);
    if (bytes <= sender.available()) {
      sender.Spend(bytes);
      ASSERT_TRUE(receiver.Receive(bytes));
      sent += bytes;
    }
    const size_t take = rng() % (receiver.held() + 1);
    consumed += take;
    if (const uint32_t grant = receiver.Consume(take); grant > 0) {
      ASSERT_TRUE(sender.Grant(grant));
    }
    ASSERT_LE(sent - consumed, kWindowBytes);
  }
  EXPECT_GT(sent, 10u * kWindowBytes) << "and it never gets stuck";
}

TEST(Credit, LiesAreRefused) {
  SendCredit sender;
  EXPECT_FALSE(sender.Grant(1));
  sender.Spend(10);
  EXPECT_FALSE(sender.Grant(0));
  EXPECT_FALSE(sender.Grant(11));
  EXPECT_TRUE(sender.Grant(10));
  EXPECT_FALSE(sender.Grant(~uint32_t{0}));
  ReceiveCredit receiver;
  EXPECT_FALSE(receiver.Receive(kWindowBytes + 1));
  EXPECT_TRUE(receiver.Receive(kWindowBytes));
  EXPECT_FALSE(receiver.Receive(1));
}

}  // namespace
}  // namespace bunker::wire
