// What a guest may say of its commands, shells, processes and files, while callers start, feed,
// read and give up theirs: frames of every type in any order, right, wrong or cut. Whatever comes,
// each caller is told one end, nothing goes beyond its credit, and no word is passed on uncleaned.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>

#include "agent/exec/channel_core.h"
#include "agent/exec/exec_stream.h"
#include "agent/reconcile/process_codec.h"
#include "common/base/reason.h"
#include "common/base/utf8.h"
#include "common/wire/session.h"
#include "tests/fuzz/stepped_channel.h"

namespace {

using bunker::agent::ExecCallbacks;
using bunker::agent::ExecResult;
using bunker::agent::ExecSpec;
using bunker::agent::FileCallbacks;
using bunker::agent::SteppedChannel;
using bunker::wire::FrameType;
using bunker::wire::kMaxDataBytes;
using bunker::wire::kWindowBytes;

constexpr size_t kMaxStreams = 128;  // enough for every cap to be met

void Check(bool holds) {
  if (!holds) __builtin_trap();
}

class Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::string_view Take(size_t size) {
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(taken.size());
    return taken;
  }
  template <typename T>
  T Number() {
    T number = 0;
    const std::string_view taken = Take(sizeof(number));
    std::memcpy(&number, taken.data(), taken.size());
    return number;
  }

 private:
  std::string_view bytes_;
};

// Clean enough for a log, a header and a client.
void CheckError(const absl::Status& status) {
  const std::string message(status.message());
  Check(!status.ok() && !bunker::ReasonOf(status).empty());
  Check(message.size() < 4096 && bunker::IsUtf8(message));
  for (const char c : message) Check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

void CheckAnswer(const bunker::guest::v1::ProcessAnswer& answer) {
  const auto told = bunker::agent::ToLink(answer, absl::UnixEpoch() + absl::Hours(500'000));
  Check(told.rows_size() <= 64 && told.ByteSizeLong() < (8 << 20));
  for (const auto& row : told.rows()) {
    Check(bunker::IsUtf8(row.shell()) && bunker::IsUtf8(row.signal()));
    for (const std::string& word : row.argv()) Check(bunker::IsUtf8(word));
    Check(row.exit_code() >= 0 && row.exit_code() <= 255 && row.started_unix_ms() >= 0);
  }
}

// One caller's stream, and what it was told.
struct Caller {
  uint32_t stream = 0;
  FrameType kind = FrameType::kExecStart;
  uint64_t most_bytes = 0;  // of each output
  bool acks = false;        // by itself
  bool gave_up = false;
  bool ended = false;
  bool started = false;
  bool head_seen = false;
  uint64_t told_bytes[2] = {0, 0};
  uint64_t held_bytes = 0;

  void Tell() const { Check(!ended && !gave_up); }
  void End() {
    Tell();
    ended = true;
  }
};

void Output(Caller* caller, bool is_stderr, std::string_view data) {
  caller->Tell();
  Check(!data.empty() && data.size() <= kMaxDataBytes);
  Check(caller->kind == FrameType::kExecStart || caller->kind == FrameType::kProcessAttach);
  uint64_t& told = caller->told_bytes[is_stderr ? 1 : 0];
  told += data.size();
  Check(told <= caller->most_bytes);
  if (!caller->acks) caller->held_bytes += data.size();
  Check(caller->held_bytes <= kWindowBytes);
}

void CheckResult(const Caller& caller, const ExecResult& result) {
  Check(result.exit_code >= 0 && result.exit_code <= 255 && result.signal.size() <= 12);
  for (const char c : result.signal) Check(c > 0x20 && c < 0x7f);
  Check(result.stdout_bytes >= caller.told_bytes[0] && result.stderr_bytes >= caller.told_bytes[1]);
  Check(result.duration >= absl::ZeroDuration());
}

ExecCallbacks Watch(Caller* caller) {
  ExecCallbacks callbacks;
  callbacks.on_output = [caller](bool is_stderr, std::string_view data) {
    Output(caller, is_stderr, data);
  };
  callbacks.on_exit = [caller](const ExecResult& result) {
    caller->End();
    CheckResult(*caller, result);
    Check(caller->kind != FrameType::kProcessCall);
  };
  callbacks.on_error = [caller](const absl::Status& why) {
    caller->End();
    CheckError(why);
  };
  callbacks.on_answer = [caller](const bunker::guest::v1::ProcessAnswer& answer) {
    caller->End();
    Check(caller->kind == FrameType::kProcessCall);
    CheckAnswer(answer);
  };
  callbacks.on_log_end = [caller](uint64_t) {
    caller->End();
    Check(caller->kind == FrameType::kProcessAttach);
  };
  callbacks.on_started = [caller](uint32_t) {
    caller->Tell();
    Check(!caller->started && caller->kind != FrameType::kProcessCall);
    caller->started = true;
  };
  callbacks.on_gap = [caller](uint64_t bytes) {
    caller->Tell();
    Check(caller->kind == FrameType::kProcessAttach && bytes > 0);
  };
  callbacks.on_stdin_room = [caller] { caller->Tell(); };
  return callbacks;
}

FileCallbacks WatchFile(Caller* caller) {
  FileCallbacks callbacks;
  callbacks.on_head = [caller](const bunker::guest::v1::FileHead&) {
    caller->Tell();
    Check(!caller->head_seen);
    caller->head_seen = true;
  };
  callbacks.on_data = [caller](std::string_view data) {
    caller->Tell();
    Check(caller->head_seen && !data.empty() && data.size() <= kMaxDataBytes);
    caller->held_bytes += data.size();
    Check(caller->held_bytes <= kWindowBytes);
  };
  callbacks.on_room = [caller] { caller->Tell(); };
  callbacks.on_end = [caller](const bunker::guest::v1::FileEnd&) { caller->End(); };
  callbacks.on_error = [caller](const absl::Status& why) {
    caller->End();
    CheckError(why);
  };
  return callbacks;
}

class Play {
 public:
  explicit Play(std::string_view bytes) : input_(bytes) {}
  void Run();

 private:
  void Step(uint8_t op);
  void Start(uint8_t kind);
  void StartFile(uint8_t op);
  void Feed(Caller* caller);
  void Ack(Caller* caller);
  void GiveUp(Caller* caller);
  void Question(bool is_ping);
  void Say(std::string_view bytes);
  void SayHello();
  void SayFrame(FrameType type, std::string_view payload, bool mend);
  Caller* Pick();

  Input input_;
  std::deque<Caller> callers_;  // never moved: callbacks point to them
  SteppedChannel channel_;      // ends first, and tells them so
};

Caller* Play::Pick() {
  const size_t which = input_.Number<uint8_t>();
  return callers_.empty() ? nullptr : &callers_[which % callers_.size()];
}

void Play::Start(uint8_t kind) {
  if (callers_.size() == kMaxStreams) return;
  Caller caller;
  ExecSpec spec;
  const uint8_t flags = input_.Number<uint8_t>();
  caller.kind = kind == 0   ? FrameType::kExecStart
                : kind == 1 ? FrameType::kProcessCall
                            : FrameType::kProcessAttach;
  spec.open_stdin = kind == 0 && (flags & 1) != 0;
  spec.auto_ack = kind == 0 && (flags & 2) != 0;
  spec.timeout_ms = (flags & 4) != 0 ? 60'000 : 0;
  spec.max_output_bytes = kind == 1 ? 0 : (flags & 8) != 0 ? 100'000 : UINT64_MAX;
  caller.most_bytes = spec.max_output_bytes;
  caller.acks = spec.auto_ack;
  callers_.push_back(caller);
  const auto stream =
      channel_.core().Open(caller.kind, "start", spec, Watch(&callers_.back()));
  if (stream.ok()) {
    Check(channel_.alive() && channel_.ready());
    callers_.back().stream = *stream;
  } else {
    CheckError(stream.status());
    callers_.pop_back();
  }
}

void Play::StartFile(uint8_t op) {
  if (callers_.size() == kMaxStreams) return;
  bunker::guest::v1::FileStart start;
  start.set_op(static_cast<bunker::guest::v1::FileStart::Op>(1 + op % 9));
  callers_.emplace_back();
  callers_.back().kind = FrameType::kFileStart;
  const auto stream = channel_.core().StartFile(start, WatchFile(&callers_.back()));
  if (stream.ok()) {
    callers_.back().stream = *stream;
  } else {
    CheckError(stream.status());
    callers_.pop_back();
  }
}

void Play::Feed(Caller* caller) {
  static const std::string data(2 * kWindowBytes, 'i');
  const std::string_view bytes = std::string_view(data).substr(input_.Number<uint32_t>() %
                                                               data.size());
  if (caller->kind == FrameType::kFileStart) {
    Check(channel_.core().TryWriteFile(caller->stream, bytes) <= bytes.size());
    if (bytes.size() % 5 == 0) channel_.core().CommitFile(caller->stream, bytes.size());
  } else {
    Check(channel_.core().TryWriteStdin(caller->stream, bytes) <= bytes.size());
    if (bytes.size() % 5 == 0) channel_.core().CloseStdin(caller->stream);
  }
}

void Play::Ack(Caller* caller) {
  const uint64_t taken = std::min<uint64_t>(caller->held_bytes, input_.Number<uint32_t>());
  if (caller->kind == FrameType::kFileStart) {
    channel_.core().AckFile(caller->stream, taken);
  } else {
    channel_.core().AckOutput(caller->stream, taken);
  }
  caller->held_bytes -= taken;
}

void Play::GiveUp(Caller* caller) {
  if (caller->gave_up) return;
  if (caller->kind == FrameType::kFileStart) {
    channel_.core().DetachFile(caller->stream);
  } else {
    channel_.core().Detach(caller->stream);
  }
  caller->gave_up = true;
}

void Play::Question(bool is_ping) {
  const absl::Status status =
      is_ping ? channel_.core().Ping(absl::ZeroDuration()).status()
              : channel_.core().Configure(bunker::guest::v1::GuestConfig(), absl::ZeroDuration());
  CheckError(status);  // nobody has answered yet
}

void Play::Say(std::string_view bytes) {
  if (absl::Status status = channel_.Say(bytes); !status.ok()) {
    CheckError(status);
    for (const Caller& caller : callers_) Check(caller.ended || caller.gave_up);
    Check(channel_.streams() == 0 && channel_.unsent_bytes() == 0);
  }
}

void Play::SayHello() {
  bunker::guest::v1::GuestHello hello;
  hello.set_protocol_version(1);
  Say(bunker::wire::EncodeFrame(SteppedChannel::kEpoch, 0, FrameType::kHelloAck,
                                hello.SerializeAsString()));
}

// A frame whose checksums hold; then perhaps one byte is another one.
void Play::SayFrame(FrameType type, std::string_view payload, bool mend) {
  const uint32_t which = input_.Number<uint8_t>();
  const uint32_t stream = callers_.empty() || which == 0 ? which
                          : which < 200 ? callers_[which % callers_.size()].stream
                                        : which;
  std::string frame = bunker::wire::EncodeFrame(SteppedChannel::kEpoch, stream, type, payload);
  if (!mend) {
    const uint16_t at = input_.Number<uint16_t>();
    frame[at % frame.size()] = static_cast<char>(input_.Number<uint8_t>());
  }
  Say(frame);
}

void Play::Step(uint8_t op) {
  static const std::string output(kMaxDataBytes + 1, 'o');
  switch (op % 16) {
    case 0: case 1: case 2:
      return Start(op % 16);
    case 3:
      return StartFile(input_.Number<uint8_t>());
    case 4: case 5: case 6: case 7: {
      Caller* caller = Pick();
      if (caller == nullptr) return;
      if (op % 16 == 4) return Feed(caller);
      if (op % 16 == 5) return Ack(caller);
      if (op % 16 == 6) return GiveUp(caller);
      if (op >= 128) return channel_.core().Resize(caller->stream, {80, 24});
      return channel_.core().Kill(caller->stream);
    }
    case 8:
      return Question(op >= 128);
    case 9:
      channel_.Write();
      if (op < 128) channel_.Take();
      return;
    case 10: {
      if (!channel_.alive()) channel_.NewSession();
      return SayHello();
    }
    case 11: {
      const auto type = static_cast<FrameType>(input_.Number<uint8_t>());
      const size_t size = input_.Number<uint32_t>() % output.size() + (op >= 192 ? 1 : 0);
      return SayFrame(type, std::string_view(output).substr(0, size), op < 128 || op >= 192);
    }
    case 12: {
      bunker::guest::v1::Credit credit;
      credit.set_bytes(input_.Number<uint32_t>());
      return SayFrame(op >= 128 ? FrameType::kFileCredit : FrameType::kCredit,
                      credit.SerializeAsString(), true);
    }
    case 13:
      return Say(input_.Take(input_.Number<uint16_t>()));
    default: {
      const auto type = static_cast<FrameType>(input_.Number<uint8_t>());
      const std::string_view payload = input_.Take(input_.Number<uint16_t>());
      return SayFrame(type, payload, op < 192);
    }
  }
}

void Play::Run() {
  SayHello();
  while (!input_.empty()) {
    Step(input_.Number<uint8_t>());
    Check(channel_.unsent_bytes() < (8 << 20) && channel_.streams() <= 64 + 32);
  }
}

struct Heard {
  std::string frames;
  uint64_t garbage_bytes = 0;
};

// What the guest's side makes of bytes that come in pieces of `piece`.
Heard Hear(std::string_view bytes, size_t piece) {
  Heard heard;
  bunker::wire::FrameParser parser;
  bunker::wire::Frame frame;
  while (!bytes.empty()) {
    bytes.remove_prefix(parser.Feed(bytes.substr(0, piece)));
    for (;;) {
      const auto result = parser.Next(&frame);
      if (result == bunker::wire::FrameParser::Result::kNeedMore) break;
      if (result == bunker::wire::FrameParser::Result::kGarbage) continue;
      Check(frame.payload.size() <= bunker::wire::kMaxPayloadBytes);
      heard.frames += bunker::wire::EncodeFrame(frame.epoch, frame.stream, frame.type,
                                                frame.payload);
    }
  }
  heard.garbage_bytes = parser.garbage_bytes();
  return heard;
}

// However bytes are cut, the same frames come out, and each came in as it is.
void FuzzParser(std::string_view bytes) {
  Input input(bytes);
  std::string stream;
  while (!input.empty()) {
    const uint8_t op = input.Number<uint8_t>();
    const std::string_view part = input.Take(input.Number<uint8_t>());
    std::string frame = op < 64 ? std::string(part)
                                : bunker::wire::EncodeFrame(op, op % 3, FrameType::kStdout, part);
    if (op >= 192) frame.resize(frame.size() - part.size() / 2);
    stream += frame;
  }
  const Heard whole = Hear(stream, stream.size());
  for (const size_t piece : {size_t{1}, size_t{31}, size_t{33}}) {
    const Heard pieces = Hear(stream, piece);
    Check(pieces.frames == whole.frames);
    Check(pieces.frames.size() + pieces.garbage_bytes <= stream.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);  // it tells of each bad text
  static_cast<void>(quiet);
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 8 == 7) {
    FuzzParser(bytes);
  } else {
    Play(bytes).Run();
  }
  return 0;
}
