// The one frame format between the agent and a guest, and an incremental parser for it.
//
//   offset 0  magic        "BKF1"
//          4  length       of the payload, ≤ kMaxPayloadBytes
//          8  epoch        of the session, 64 random bits
//         16  stream       0 = the session itself
//         20  type         FrameType; 21…23 are zero
//         24  payload_crc  CRC-32C of the payload
//         28  header_crc   CRC-32C of bytes 0…27
//   then the payload. Integers are little-endian.
//
// The header has a checksum of its own, so that a length is trusted before the payload is there:
// payload bytes, which a tenant may choose, are then never looked at as if they were frames.
//
// Pure: no I/O, no clock. Not thread-safe: one parser, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace bunker::wire {

inline constexpr uint32_t kMagic = 0x31464b42;
inline constexpr size_t kHeaderBytes = 32;
inline constexpr size_t kMaxPayloadBytes = 256 * 1024;
// Data frames (output, stdin) stay below this, so that streams share the channel fairly.
inline constexpr size_t kMaxDataBytes = 32 * 1024;

enum class FrameType : uint8_t {
  kHello = 1,     // host → guest: a new session begins; the epoch is in the header
  kHelloAck = 2,  // guest → host: GuestHello
  kPing = 3,      // either way: Ping
  kPong = 4,
  kConfigure = 5,   // GuestConfig
  kConfigured = 6,  // ConfigureResult
  kShutdown = 7,    // Shutdown
  kExecStart = 16,  // host → guest: ExecStart; opens the stream
  kStdin = 17,      // host → guest: raw bytes, under credit
  kStdinClose = 18,
  kStdout = 19,  // guest → host: raw bytes, under credit
  kStderr = 20,
  kExecExit = 21,   // guest → host: ExecExit; ends the stream
  kExecError = 22,  // guest → host: ExecError; ends the stream
  kKill = 23,       // host → guest: Kill
  kCredit = 24,     // either way: Credit, for the data of this stream
  kProcessCall = 32,    // host → guest: ProcessCall; opens the stream
  kProcessAnswer = 33,  // guest → host: ProcessAnswer; ends the stream
  kProcessAttach = 34,  // host → guest: ProcessAttach; opens the stream
  kGap = 35,            // guest → host: Gap
  kResize = 36,         // host → guest: Terminal
  kStarted = 37,        // guest → host: Started
  kLogEnd = 38,         // guest → host: LogEnd; ends the stream
  kFileStart = 48,   // host → guest: FileStart; opens the stream
  kFileData = 49,    // either way: raw bytes, under credit
  kFileCommit = 50,  // host → guest: FileCommit; the data is complete
  kFileCancel = 51,  // host → guest: give it up, leave nothing behind; kFileEnd still comes
  kFileHead = 52,    // guest → host: FileHead
  kFileEnd = 53,     // guest → host: FileEnd; ends the stream
  kFileCredit = 54,  // either way: Credit
};

// Of an operation on files, not of a command.
constexpr bool IsFileFrame(FrameType type) {
  return static_cast<uint8_t>(type) >= 48 && static_cast<uint8_t>(type) < 64;
}

struct Frame {
  uint64_t epoch = 0;
  uint32_t stream = 0;
  FrameType type = FrameType::kPing;
  std::string_view payload;  // in the parser's buffer: valid until the next Reserve()
};

// Writes kHeaderBytes at `out` for `payload`. REQUIRES: payload.size() <= kMaxPayloadBytes.
void WriteHeader(char* out, uint64_t epoch, uint32_t stream, FrameType type,
                 std::string_view payload);

// Header and payload. REQUIRES: payload.size() <= kMaxPayloadBytes.
std::string EncodeFrame(uint64_t epoch, uint32_t stream, FrameType type, std::string_view payload);

// Bytes in, frames out; holds at most one frame and one read. Usage: Reserve(), read into it,
// Commit(), then Next() until it says kNeedMore.
class FrameParser {
 public:
  enum class Result {
    kNeedMore,  // feed more bytes
    kFrame,     // `frame` is set
    kGarbage,   // bytes that are no frame were dropped, or a payload's checksum was wrong
  };

  FrameParser();

  // Room to read into: at least 64 KiB. Invalidates the last frame's payload.
  // REQUIRES: Next() returned kNeedMore since the last Commit().
  char* Reserve(size_t* capacity);
  void Commit(size_t bytes);
  // Reserve, copy, Commit. Returns how many bytes of `data` were taken.
  size_t Feed(std::string_view data);

  Result Next(Frame* frame);

  // While set, every frame but one with this epoch and type is stepped through byte by byte as
  // garbage: a stream that begins in the middle of old frames can then hide nothing and forge
  // nothing, as long as the epoch can't be guessed. Ends with the first frame found.
  void HuntFor(uint64_t epoch, FrameType type);
  bool hunting() const { return hunting_; }

  // Bytes dropped so far.
  uint64_t garbage_bytes() const { return garbage_bytes_; }

 private:
  Result SkipToMagic();
  bool HeaderIsValid(const char* at) const;

  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool hunting_ = false;
  uint64_t hunted_epoch_ = 0;
  FrameType hunted_type_ = FrameType::kHelloAck;
  uint64_t garbage_bytes_ = 0;
};

}  // namespace bunker::wire
