// GuestChannel against a guest that does not keep the rules, and against the real exec server over
// a socket pair. The agent must get a typed error and live.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "agent/exec/exec_stream.h"
#include "agent/exec/guest_channel.h"
#include "common/base/reason.h"
#include "common/wire/session.h"
#include "tests/unit/agent_exec/fake_guest.h"
#include "tests/unit/agent_exec/real_server.h"

namespace bunker::agent {
namespace {

using testing::HasSubstr;
using wire::EncodeFrame;
using wire::FrameType;

// What became of one command.
struct Seen {
  std::string out;
  std::promise<absl::Status> ended;
};
ExecCallbacks Watch(const std::shared_ptr<Seen>& seen) {
  ExecCallbacks callbacks;
  callbacks.on_output = [seen](bool, std::string_view data) { seen->out.append(data); };
  callbacks.on_exit = [seen](const ExecResult&) { seen->ended.set_value(absl::OkStatus()); };
  callbacks.on_error = [seen](const absl::Status& why) { seen->ended.set_value(why); };
  return callbacks;
}

ExecSpec SpecOf(uint64_t max_output_bytes) {
  ExecSpec spec;
  spec.argv = {"true"};
  spec.max_output_bytes = max_output_bytes;
  return spec;
}

// Runs one command against a guest that answers it by `misbehave`; the error its caller gets.
absl::Status EndOf(const std::function<void(FakeGuest&, uint32_t)>& misbehave,
                   uint64_t max_output_bytes = 1 << 20) {
  FakeGuest guest([&](FakeGuest& fake) {
    fake.ShakeHands();
    misbehave(fake, fake.AwaitExec());
    fake.DrainToEnd();
  });
  GuestChannel channel({"test", [&] { return guest.Connect(); }});
  if (absl::Status ready = channel.WaitReady(absl::Seconds(10)); !ready.ok()) return ready;
  const auto seen = std::make_shared<Seen>();
  auto handle = channel.StartExec(SpecOf(max_output_bytes), Watch(seen));
  if (!handle.ok()) return handle.status();
  auto ended = seen->ended.get_future();
  if (ended.wait_for(std::chrono::seconds(10)) != std::future_status::ready) {
    return absl::InternalError("the caller was never told");
  }
  return ended.get();
}

TEST(HostileGuest, EveryBreachEndsTheConnectionWithATypedError) {
  const auto send = [](FrameType type, std::string payload) {
    return [=](FakeGuest& guest, uint32_t stream) { guest.Send(stream, type, payload); };
  };
  const auto on_stream_0 = [](FrameType type, std::string payload) {
    return [=](FakeGuest& guest, uint32_t) { guest.Send(0, type, payload); };
  };
  const std::vector<std::pair<const char*, std::function<void(FakeGuest&, uint32_t)>>> breaches = {
      {"empty output", send(FrameType::kStdout, "")},
      {"output frame too large",
       send(FrameType::kStdout, std::string(wire::kMaxDataBytes + 1, 'x'))},
      {"credit for nothing", send(FrameType::kCredit, std::string("\x08\x01", 2))},
      {"zero credit", send(FrameType::kCredit, "")},
      {"credit that is no message", send(FrameType::kCredit, "\xff\xff\xff")},
      {"exit that is no message", send(FrameType::kExecExit, "\xff\xff\xff")},
      {"a command from the guest", send(FrameType::kExecStart, "")},
      {"stdin from the guest", send(FrameType::kStdin, "x")},
      {"a hello from the guest", on_stream_0(FrameType::kHello, "")},
      {"a second ack", on_stream_0(FrameType::kHelloAck, "")},
      {"pong without ping", on_stream_0(FrameType::kPong, "")},
      {"configured without configure", on_stream_0(FrameType::kConfigured, "")},
      {"shutdown from the guest", on_stream_0(FrameType::kShutdown, "")},
      {"unknown type", on_stream_0(static_cast<FrameType>(200), "")},
      {"output of a stream that never was",
       [](FakeGuest& guest, uint32_t stream) { guest.Send(stream + 7, FrameType::kStdout, "x"); }},
      {"a gap in a command", send(FrameType::kGap, std::string("\x08\x01", 2))},
      {"an answer to no question", send(FrameType::kProcessAnswer, "")},
      {"a start that is no message", send(FrameType::kStarted, "\xff\xff\xff")},
      {"a second start",
       [](FakeGuest& guest, uint32_t stream) {
         guest.Send(stream, FrameType::kStarted, "");
         guest.Send(stream, FrameType::kStarted, "");
       }},
      {"a resize from the guest", send(FrameType::kResize, "")},
      {"a question from the guest", send(FrameType::kProcessCall, "")},
      {"pong on a stream", send(FrameType::kPong, "")},
      {"garbage", [](FakeGuest& guest, uint32_t) { guest.SendRaw("garbage"); }},
      {"another epoch",
       [](FakeGuest& guest, uint32_t stream) {
         guest.SendRaw(EncodeFrame(1, stream, FrameType::kStdout, "x"));
       }},
  };
  for (const auto& [name, misbehave] : breaches) {
    const absl::Status status = EndOf(misbehave);
    EXPECT_EQ(ReasonOf(status), "UNAVAILABLE") << name << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("broke the channel's rules")) << name;
  }
}

TEST(HostileGuest, OutputWithoutCreditIsABreach) {
  // An honest reader acks, so only a flood that outruns the acks breaks the rule: don't ack.
  FakeGuest guest([](FakeGuest& fake) {
    fake.ShakeHands();
    const uint32_t stream = fake.AwaitExec();
    const std::string chunk(wire::kMaxDataBytes, 'x');
    for (int i = 0; i < 8; ++i) fake.Send(stream, FrameType::kStdout, chunk);
    fake.Send(stream, FrameType::kStdout, "one byte more");
    fake.DrainToEnd();
  });
  GuestChannel channel({"test", [&] { return guest.Connect(); }});
  ASSERT_TRUE(channel.WaitReady(absl::Seconds(10)).ok());
  const auto seen = std::make_shared<Seen>();
  ExecSpec spec = SpecOf(1 << 30);
  spec.auto_ack = false;
  auto handle = channel.StartExec(spec, Watch(seen));
  ASSERT_TRUE(handle.ok());
  const absl::Status status = seen->ended.get_future().get();
  EXPECT_THAT(std::string(status.message()), HasSubstr("output without credit"));
  EXPECT_EQ(seen->out.size(), wire::kWindowBytes);
}

TEST(HostileGuest, MoreOutputThanAskedForIsABreach) {
  const absl::Status status = EndOf(
      [](FakeGuest& guest, uint32_t stream) {
        guest.Send(stream, FrameType::kStdout, "12345");
        guest.Send(stream, FrameType::kStderr, "12345");  // a limit of its own
        guest.Send(stream, FrameType::kStdout, "6");
      },
      5);
  EXPECT_THAT(std::string(status.message()), HasSubstr("more output than asked for"));
}

TEST(HostileGuest, AnEndIsMadePlausible) {
  ExecSpec spec = SpecOf(100);
  const auto now = std::chrono::steady_clock::now();
  ExecStream stream(spec, now);
  ASSERT_TRUE(stream.OnOutput(false, "12345").ok());
  guest::v1::ExecExit exit;
  exit.set_exit_code(-5);
  exit.set_signal("SIG\nevil=1");
  exit.set_timed_out(true);
  exit.set_duration_us(~uint64_t{0});
  const ExecResult result = stream.OnExit(exit, now + std::chrono::seconds(2));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.signal, "SIGUNKNOWN");
  EXPECT_FALSE(result.timed_out) << "no time-out was asked for";
  EXPECT_EQ(result.stdout_bytes, 5u) << "not less than what came";
  EXPECT_EQ(result.duration, absl::Seconds(2)) << "not longer than we waited";
  EXPECT_EQ(CleanGuestText("a\nb\x1b[31m\xff"), "a?b?[31m?");
  EXPECT_EQ(CleanGuestText(std::string(5000, 'x')).size(), 300u);
}

TEST(HostileGuest, BytesWithoutAHandshakeAreNotReadForEver) {
  std::atomic<size_t> sent{0};
  FakeGuest guest([&](FakeGuest& fake) {
    std::string noise;
    for (int i = 0; i < 5000; ++i) noise += EncodeFrame(7, 0, FrameType::kHelloAck, "forged");
    while (fake.SendRaw(noise)) sent += noise.size();
  });
  GuestChannel channel({"test", [&] { return guest.Connect(); }});
  const absl::Status status = channel.WaitReady(absl::Seconds(3));
  EXPECT_EQ(ReasonOf(status), "UPSTREAM_TIMEOUT") << status;
  EXPECT_LT(sent, 40u << 20);
}

TEST(HostileGuest, ABootErrorIsTold) {
  FakeGuest guest([](FakeGuest& fake) {
    wire::Frame frame;
    while (fake.Read(&frame) != wire::GuestSession::Event::kNewSession) {
    }
    guest::v1::GuestHello hello;
    hello.set_protocol_version(1);
    hello.set_boot_error("mount ext4 on /m/base: Invalid argument");
    fake.Send(0, FrameType::kHelloAck, hello.SerializeAsString());
    fake.DrainToEnd();
  });
  GuestChannel channel({"test", [&] { return guest.Connect(); }});
  const absl::Status status = channel.WaitReady(absl::Seconds(10));
  EXPECT_EQ(ReasonOf(status), "BUNKER_NOT_RUNNING");
  EXPECT_THAT(std::string(status.message()), HasSubstr("/m/base: Invalid argument"));
  EXPECT_EQ(ReasonOf(channel.StartExec(SpecOf(1), {}).status()), "BUNKER_NOT_RUNNING");
}

TEST(HostileGuest, SilenceIsATimeOut) {
  FakeGuest guest([](FakeGuest& fake) {
    fake.ShakeHands();
    fake.DrainToEnd();
  });
  GuestChannel channel({"test", [&] { return guest.Connect(); }});
  ASSERT_TRUE(channel.WaitReady(absl::Seconds(10)).ok());
  EXPECT_EQ(ReasonOf(channel.Ping(absl::Milliseconds(50)).status()), "UPSTREAM_TIMEOUT");
  EXPECT_EQ(ReasonOf(channel.Configure({}, absl::Milliseconds(50))), "UPSTREAM_TIMEOUT");
  auto handle = channel.StartExec(SpecOf(1), {});
  ASSERT_TRUE(handle.ok());
  EXPECT_EQ(ReasonOf((*handle)->WriteStdin(std::string(1 << 20, 'x'), absl::Milliseconds(50))),
            "UPSTREAM_TIMEOUT")
      << "no more than a window is sent without credit";
}

TEST(HostileGuest, AGuestThatTakesNothingIsGivenUp) {
  std::promise<void> over;
  FakeGuest guest([&](FakeGuest& fake) {
    fake.ShakeHands();
    over.get_future().wait();
  });
  GuestChannel channel({"test", [&] { return guest.Connect(); }, absl::Milliseconds(200)});
  ASSERT_TRUE(channel.WaitReady(absl::Seconds(10)).ok());
  const auto seen = std::make_shared<Seen>();
  auto first = channel.StartExec(SpecOf(1), Watch(seen));
  ASSERT_TRUE(first.ok());
  std::vector<std::unique_ptr<ExecHandle>> handles;
  absl::Status refused;
  for (int i = 0; i < 70 && refused.ok(); ++i) {
    auto handle = channel.StartExec(SpecOf(1), {});
    refused = handle.status();
    if (!handle.ok()) break;
    (*handle)->TryWriteStdin(std::string(300'000, 'x'));
    handles.push_back(std::move(*handle));
  }
  EXPECT_FALSE(refused.ok()) << "what waits for the guest is bounded";
  const absl::Status status = seen->ended.get_future().get();
  EXPECT_THAT(std::string(status.message()), HasSubstr("takes nothing"));
  over.set_value();
}

TEST(RealServer, RunsCommandsAsTheAgentSays) {
  RealServer server;
  GuestChannel channel({"test", [&] { return server.Connect(); }});
  ASSERT_TRUE(channel.WaitReady(absl::Seconds(10)).ok());
  ExecSpec spec;
  spec.shell = "read line; echo got $line; exit 3";
  spec.user = std::to_string(getuid()) + ":" + std::to_string(getgid());
  spec.allow_root = true;
  struct Outcome {
    std::string out;
    std::promise<ExecResult> ended;
  };
  const auto outcome = std::make_shared<Outcome>();
  ExecCallbacks callbacks;
  callbacks.on_output = [outcome](bool, std::string_view data) { outcome->out.append(data); };
  callbacks.on_exit = [outcome](const ExecResult& result) { outcome->ended.set_value(result); };
  auto handle = channel.StartExec(spec, std::move(callbacks));
  ASSERT_TRUE(handle.ok()) << handle.status();
  ASSERT_TRUE((*handle)->WriteStdin("abc\n", absl::Seconds(5)).ok());
  const ExecResult result = outcome->ended.get_future().get();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(outcome->out, "got abc\n");
  EXPECT_TRUE(channel.Ping(absl::Seconds(5)).ok());
}

TEST(RealServer, HandlesOutliveTheChannel) {
  RealServer server;
  auto channel = std::make_unique<GuestChannel>(
      GuestChannel::Options{"test", [&] { return server.Connect(); }});
  ASSERT_TRUE(channel->WaitReady(absl::Seconds(10)).ok());
  const auto seen = std::make_shared<Seen>();
  ExecSpec spec = SpecOf(10);
  spec.argv = {"sleep", "2"};
  spec.user = std::to_string(getuid()) + ":" + std::to_string(getgid());
  spec.allow_root = true;
  auto handle = channel->StartExec(spec, Watch(seen));
  ASSERT_TRUE(handle.ok());
  channel.reset();
  EXPECT_EQ(ReasonOf(seen->ended.get_future().get()), "CANCELLED");
  EXPECT_EQ((*handle)->TryWriteStdin("x"), 1u);
  (*handle)->Kill();
}

}  // namespace
}  // namespace bunker::agent
