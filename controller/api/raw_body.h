// The bytes that a call brings or is answered with, beside its messages: a file's. REST implements
// it, as a part of the call's StreamSink, over a connection; back-pressure goes through it in both
// directions.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace bunker::controller {

class RawBody {
 public:
  virtual ~RawBody() = default;

  // ---- what the client sends
  // Where it said how much that is.
  virtual std::optional<uint64_t> size() const = 0;
  // The next piece, at most 64 KiB; "" is the end. One at a time. `done` runs once, on any thread,
  // and not from within; an error: the rest does not come.
  virtual void Read(absl::AnyInvocable<void(absl::StatusOr<std::string>)> done) = 0;

  // ---- what the client gets, in place of messages
  // From here on no error can be told: StreamSink::End() with one cuts the answer. `size`: none,
  // where nobody knows it before.
  virtual void BeginBytes(std::string content_type, std::optional<uint64_t> size) = 0;
  // Whether another piece of at most 128 KiB may be written; StreamSink's `drained` tells of room.
  virtual bool CanTakeBytes() = 0;
  virtual void WriteBytes(std::string bytes) = 0;
  // Nothing came for a while: for those who can say so.
  virtual void KeepAwake() {}
};

}  // namespace bunker::controller
